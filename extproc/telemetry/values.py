"""Numbers of one process in the files that prometheus_client's collector adds up over processes.

The library writes the same files, at four times the cost: it asks for the process id at every increment, to survive a
fork, and looks up anew where the number stands. Workers never fork, and count thirty times a request. The files'
format stays the library's business.
"""

from __future__ import annotations

import os
import struct
import threading
from bisect import bisect_left
from typing import Any, ClassVar

from prometheus_client import Histogram, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

_DOUBLES = struct.Struct("dd")  # the number, and when it was set


def share_values(directory: str) -> None:
    """Have metrics that are made from now on keep their numbers in `directory`."""
    values.ValueClass = type("SharedValue", (_Value,), {"directory": directory, "files": {}})


class _Value:
    """As prometheus_client's `MmapedValue`."""

    _multiprocess = True
    directory: ClassVar[str]
    files: ClassVar[dict[str, MmapedDict]]
    _lock = threading.Lock()

    def __init__(
        self,
        kind: str,
        metric: str,
        name: str,
        label_names: list[str],
        label_values: list[str],
        text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        prefix = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
        key = mmap_key(metric, name, label_names, label_values, text)
        with self._lock:
            file = self.files.get(prefix)
            if file is None:
                path = os.path.join(self.directory, f"{prefix}_{os.getpid()}.db")
                file = self.files[prefix] = MmapedDict(path)  # type: ignore[no-untyped-call]
            self._value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]
            # A file that grows is mapped again, and what was mapped before shows the same bytes.
            self._memory, at = file._m, file._positions[key]
            self._place = slice(at, at + _DOUBLES.size)

    def inc(self, amount: float) -> None:
        with self._lock:
            self._value = value = self._value + amount
            # One assignment: `pack_into` would let a reader see zeros.
            self._memory[self._place] = _DOUBLES.pack(value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        with self._lock:
            self._value = value
            self._memory[self._place] = _DOUBLES.pack(value, timestamp or 0.0)

    def get(self) -> float:
        return self._value

    def set_exemplar(self, _: Any) -> None:
        """There are none where numbers are added up."""

    def get_exemplar(self) -> None:
        return None


class QuickHistogram(Histogram):
    """Finds the bucket by bisection, and leaves out the checks of what its callers get right."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)
