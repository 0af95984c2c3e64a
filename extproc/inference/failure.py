"""How the encoder can fail its callers: always as a DependencyError, with a reason from a closed set for metrics."""

from __future__ import annotations

import enum

from extproc.errors import DependencyError


class Reason(enum.StrEnum):
    """`overloaded`: too much is waiting; `deadline`: it would come too late, or did; `unavailable`: not loaded, closed,
    or no server; `failed`: it was computed and went wrong."""

    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


class EncoderError(DependencyError):
    """The encoder can't answer. The message never carries text that was to be encoded."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__("encoder", message)
        self.reason, self._message = reason, message

    def again(self) -> EncoderError:
        """The same for somebody else: an exception that is raised twice grows its traceback."""
        return EncoderError(self.reason, self._message)
