"""Anchors the audit log of this replica in Redis every few seconds. Must not know: who writes records."""

from __future__ import annotations

import asyncio
import logging
import socket

from extproc.audit.chain import Head
from extproc.audit.files import ChainFiles
from extproc.errors import DependencyError
from extproc.stores.audit_anchors import AuditAnchors

ANCHOR_EVERY_S = 5.0
_log = logging.getLogger(__name__)


def place_of(files: ChainFiles) -> str:
    """The name of this machine and directory among the places where chains are kept."""
    return f"{socket.gethostname()}:{files.directory}"


class AuditFeed:
    """Runs until it is cancelled; `finish` anchors what is there at the end."""

    def __init__(self, files: ChainFiles, anchors: AuditAnchors) -> None:
        self._files = files
        self._anchors = anchors
        self._known: Head | None = None
        self._trouble = ""

    async def run(self) -> None:
        while True:
            await self._anchor()
            await asyncio.sleep(ANCHOR_EVERY_S)

    async def finish(self) -> None:
        await self._anchor()
        await self._anchors.close()

    async def _anchor(self) -> None:
        try:
            head = await asyncio.to_thread(self._files.head)
            if head is None or head == self._known:
                return
            kept = await self._anchors.put(head.chain, place_of(self._files), head.head, head.last)
        except (OSError, DependencyError) as error:
            self._note(str(error))
            return
        self._known = head
        self._note("" if kept else "it is not what was anchored before: run `extproc audit verify`")

    def _note(self, trouble: str) -> None:
        """One log line when something changes."""
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                _log.error("the audit log is not anchored: %s", trouble)
            else:
                _log.warning("the audit log is anchored again")
