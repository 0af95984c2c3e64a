"""The exchanges a worker has begun and not ended, kept where they outlive it.

A worker writes what it knows of each exchange into a slot of a memory-mapped file and clears the slot once the usage
event is out. Memory that was written is the kernel's, so when a worker is killed the supervisor reads the slots and
emits the events that the worker no longer can. No system call and about 2 us per write.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

SLOTS = 4096
"""As many exchanges can be open in one worker and still be accounted for if it is killed."""

_SLOT_BYTES = 1024
_LENGTH = struct.Struct("<I")


def path_of(directory: str, worker: int) -> Path:
    """Where worker number `worker` keeps its table."""
    return Path(directory) / f"worker-{worker}.exchanges"


class OpenExchanges:
    """The table of one worker; a new one is empty."""

    def __init__(self, path: Path) -> None:
        with path.open("wb+") as file:
            file.truncate(SLOTS * _SLOT_BYTES)
            self._memory = mmap.mmap(file.fileno(), 0)
        self._free = list(range(SLOTS - 1, -1, -1))
        self._slots: dict[str, int] = {}

    def write(self, exchange_id: str, facts: Mapping[str, Any]) -> None:
        """Begin an exchange, or say more of one. Facts that don't fit in a slot, or find none free, are not kept."""
        record = orjson.dumps(facts)
        if len(record) > _SLOT_BYTES - _LENGTH.size:
            return
        slot = self._slots.get(exchange_id)
        if slot is None:
            if not self._free:
                return
            slot = self._slots[exchange_id] = self._free.pop()
        start = slot * _SLOT_BYTES
        # The length last: a slot whose writing was cut short reads as it was before, or as nothing.
        _LENGTH.pack_into(self._memory, start, 0)
        self._memory[start + _LENGTH.size : start + _LENGTH.size + len(record)] = record
        _LENGTH.pack_into(self._memory, start, len(record))

    def clear(self, exchange_id: str) -> None:
        """The exchange is accounted for."""
        slot = self._slots.pop(exchange_id, None)
        if slot is not None:
            _LENGTH.pack_into(self._memory, slot * _SLOT_BYTES, 0)
            self._free.append(slot)


def unfinished(path: Path) -> list[dict[str, Any]]:
    """What a dead worker left open."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    left = []
    for start in range(0, len(content), _SLOT_BYTES):
        (length,) = _LENGTH.unpack_from(content, start)
        if length:
            left.append(orjson.loads(content[start + _LENGTH.size : start + _LENGTH.size + length]))
    return left
