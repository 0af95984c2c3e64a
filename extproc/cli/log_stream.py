"""Several growing log files shown as one. Must not know: who writes them."""

import pathlib
from collections.abc import Mapping


class LogStream:
    """Prints whole lines, each with the name of its file in front, as they appear."""

    def __init__(self, logs: Mapping[str, pathlib.Path]) -> None:
        self._files = {name: path.open(errors="replace") for name, path in logs.items()}
        self._unfinished = dict.fromkeys(logs, "")
        self._width = max(map(len, logs), default=0)

    def show_new(self) -> None:
        for name, file in self._files.items():
            *lines, self._unfinished[name] = (self._unfinished[name] + file.read()).split("\n")
            for line in lines:
                print(f"{name:<{self._width}} | {line}", flush=True)
