"""The process that is administered, as its endpoints know it. Must not know: who it is."""

from __future__ import annotations

from typing import Protocol

from extproc.admin.shapes import Running
from extproc.config.model import GatewayConfig


class Process(Protocol):
    """Its methods may be called from any thread."""

    def config(self) -> GatewayConfig:
        """The one in force."""

    def running(self) -> Running:
        """What runs."""

    def drain(self) -> None:
        """Begin to end, as at SIGTERM."""
