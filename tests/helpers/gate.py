"""An upstream that holds every request until the test lets it go, and knows how many it held at a time."""

from __future__ import annotations

import json
import threading

from tests.helpers.processes import wait_until
from tests.helpers.scripted_upstream import Call, ScriptedUpstream, whole

_LOOK_S = 0.02


class Gate:
    """A script's owner: `upstream.script` is set on construction. Requests are known by their prompts."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.at_work: list[str] = []
        self.most = 0
        self._let_go: set[str] = set()
        self._open = False
        self._lock = threading.Lock()
        self.upstream = ScriptedUpstream()
        self.upstream.script = self._hold

    def shut(self) -> None:
        """Begin anew: hold all that come from now on."""
        with self._lock:
            self.began.clear()
            self._let_go.clear()
            self._open, self.most = False, 0

    def let_go(self, *prompts: str) -> None:
        """These, now or when they come."""
        with self._lock:
            self._let_go.update(prompts)

    def open(self) -> None:
        """All, from now on."""
        with self._lock:
            self._open = True

    def holds(self, count: int) -> bool:
        """Whether it comes to hold exactly so many."""
        return wait_until(lambda: len(self.at_work) == count)

    def close(self) -> None:
        self.open()
        self.upstream.close()

    def _hold(self, call: Call) -> None:
        prompt = str(json.loads(call.seen.body)["messages"][-1]["content"])
        with self._lock:
            self.began.append(prompt)
            self.at_work.append(prompt)
            self.most = max(self.most, len(self.at_work))
        left = call.is_left(_LOOK_S)  # it works for so long at least
        while not left and not self._open and prompt not in self._let_go:
            left = call.is_left(_LOOK_S)
        with self._lock:
            self.at_work.remove(prompt)
        if left:
            call.close_connection = True
        else:
            call.answer(200, whole())
