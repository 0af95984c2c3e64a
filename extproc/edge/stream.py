"""What a service needs of a gRPC call, whichever server took it: messages as bytes, and a status at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Protocol

MAX_MESSAGE_BYTES = 16 << 20
"""One body message is what Envoy read at once, far below this."""

MAX_STREAMS = 100_000
"""As many calls may be open on one connection."""


CUT_OFF_S = 1.0
"""What is still open when a drain is over is aborted, and has so long to be gone."""


class Status(IntEnum):
    """gRPC's status codes; those we use."""

    OK = 0
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13


class CallFailed(Exception):
    """The call ends with this status. The message is for the peer."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Stream(Protocol):
    """One call, read and written by one coroutine, which is cancelled as soon as the peer gives the call up."""

    async def read(self) -> bytes | None:
        """The next message, or None when the peer has said all. Raises CallFailed for what is no message."""

    @property
    def traceparent(self) -> str:
        """The trace context of the call itself (W3C); empty where there is none."""

    async def write(self, message: bytes) -> None:
        """Returns when the peer's flow control lets it go."""


Handler = Callable[[Stream], Awaitable[None]]
"""Serves one call. Returning ends it well; CallFailed ends it with its status, any other exception is a bug."""
