"""Admin actions on the audit log: who did what to which key, cache or process.

Synchronous, so that an action is on disk before anyone is told that it is done.
"""

from __future__ import annotations

import asyncio
import time

from extproc.audit.record import Action, Entry
from extproc.audit.writer import files_of
from extproc.config.model import GatewayConfig


class NotRecorded(Exception):
    """The audit log can't be written, and what can't be recorded isn't done."""


class ActionTrail:
    """The actions of one operator, `actor` as `user@host`; nothing is kept without an audit log."""

    def __init__(self, config: GatewayConfig, actor: str) -> None:
        self._version, self._actor = config.version, actor
        self._files = files_of(config.audit)

    def rehearse(self) -> None:
        """Raises NotRecorded if records can't be written now. To be asked before anything is done."""
        self._append([])

    def record(self, action: Action, subject: str, team: str = "") -> None:
        """Raises NotRecorded."""
        done = Entry(
            time_s=time.time(),
            actor=self._actor,
            action=action,
            subject=subject,
            team=team,
            config_version=self._version,
        )
        self._append([done])

    async def ready(self) -> None:
        """`rehearse`, beside the event loop: the disk may be slow, and its lock be held by another process."""
        await asyncio.to_thread(self.rehearse)

    async def note(self, action: Action, subject: str, team: str = "") -> None:
        """`record`, beside the event loop."""
        await asyncio.to_thread(self.record, action, subject, team)

    def _append(self, entries: list[Entry]) -> None:
        if self._files is None:
            return
        try:
            self._files.append(entries)
        except OSError as error:
            raise NotRecorded(f"the audit log can't be written: {error.strerror}") from error
