"""Keeps audit records without making anyone wait: a bounded queue and one thread per process that empties it.

What can't be written stays in the queue and is tried again; what comes when the queue is full is lost, and counted.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from extproc.audit.files import ChainFiles, Rotation
from extproc.audit.record import AuditTrail, Entry, NoTrail
from extproc.config.audit import Audit
from extproc.telemetry.metrics import Metrics

_BATCH = 256
_WAITING_LIMIT = 10_000
_RETRY_S = 1.0
_log = logging.getLogger(__name__)


class Trail(AuditTrail, Protocol):
    """An audit trail that has an end."""

    def close(self, timeout_s: float) -> None: ...


class AuditWriter:
    """The audit trail of one process. `lost` is called for each record that is lost; `failing` when that may happen
    soon, and when it is over. Both from any thread."""

    def __init__(
        self, files: ChainFiles, lost: Callable[[], None], failing: Callable[[bool], None], limit: int = _WAITING_LIMIT
    ) -> None:
        self._files = files
        self._lost = lost
        self._failing = failing
        self._limit = limit
        self._waiting: deque[Entry] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._available = True
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def available(self) -> bool:
        return self._available

    def record(self, entry: Entry) -> None:
        if len(self._waiting) >= self._limit:
            self._lost()
            return
        self._waiting.append(entry)
        self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s`; what then still waits is lost."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        for _ in range(len(self._waiting)):
            self._lost()

    def _run(self) -> None:
        while not (self._stopping.is_set() and not self._waiting):
            if not self._waiting:
                self._wake.wait()
            self._wake.clear()
            while self._waiting and self._write():
                pass
            if self._waiting and self._stopping.wait(_RETRY_S):
                self._write()
                return

    def _write(self) -> bool:
        batch = list(islice(self._waiting, _BATCH))
        try:
            self._files.append(batch)
        except OSError as error:
            self._note(available=False, why=error.strerror or str(error))
            return False
        for _ in batch:
            self._waiting.popleft()
        self._note(available=True)
        return True

    def _note(self, *, available: bool, why: str = "") -> None:
        if available != self._available:
            self._available = available
            self._failing(not available)
            if available:
                _log.warning("audit records are written again")
            else:
                _log.error("audit records can't be written: %s", why)


def trail_of(config: Audit, metrics: Metrics) -> Trail:
    """This process's own trail, as it is configured."""
    files = files_of(config)
    if files is None:
        return NoTrail()
    return AuditWriter(files, metrics.audit_lost, functools.partial(metrics.degraded, "audit"))


def files_of(config: Audit) -> ChainFiles | None:
    """The configured directory; None without one."""
    if config.dir is None:
        return None
    rotation = Rotation(config.file_bytes, config.file_age_hours * 3600.0, config.keep_days)
    return ChainFiles(config.dir.absolute(), config.key, rotation)
