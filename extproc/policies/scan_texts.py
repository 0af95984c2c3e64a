"""Starts the encoder on a request's texts as early as they are known, and stops it when the exchange is over.

The policies that judge the texts find it under way (`ctx.scan`); until they ask it runs beside them, so that looking
up a cache in Redis and scanning take as long as the longer of the two. Without a policy that needs the encoder there
is none in `services`, and this policy has no place in the journey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import pydantic

from extproc.config.policy import PolicySettings
from extproc.config.section import Seconds
from extproc.dialects.interface import TextSegment
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Services, Termination, Verdict
from extproc.policies.scan import Importance, Scan


class Settings(PolicySettings):
    """How much of a request the encoder looks at, for all policies together; rules look at everything."""

    budget_windows: Annotated[int, pydantic.Field(ge=1, le=4096)] = 16
    """Most windows (some 500 bytes each) that one request may take. Where it has more: those that the rules find
    suspicious, the last user turn, tool results, then the rest, spread evenly."""

    encode_deadline_s: Seconds = 1.0
    """What is not encoded after so long has failed, and each policy that needs it does what its `on_failure` says."""


class ScanTexts:
    name: ClassVar[str] = "scan"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._encoder = services.encoder
        self._clock = services.clock

    async def on_request(self, ctx: RequestContext) -> Verdict:
        if self._encoder is None:
            return CONTINUE
        settings = self._settings
        ctx.scan = scan = Scan(self._encoder, settings.budget_windows, settings.encode_deadline_s, self._clock)
        segments = ctx.request.texts()
        last_user = _last_user_turn(segments)
        for index, segment in enumerate(segments):
            scan.want(segment.text, _importance(segment, index in last_user))
        scan.begin()
        return CONTINUE

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        if ctx.scan is not None:
            ctx.scan.close()


def _importance(segment: TextSegment, last_user: bool) -> Importance:
    if last_user:
        return Importance.LAST_USER_TURN
    return Importance.TOOL_RESULT if segment.role == "tool" else Importance.REST


def _last_user_turn(segments: Sequence[TextSegment]) -> range:
    """The indexes of the last unbroken run of what users say: a message of several parts is several segments."""
    end = len(segments)
    while end and segments[end - 1].role not in _USER:
        end -= 1
    start = end
    while start and segments[start - 1].role in _USER:
        start -= 1
    return range(start, end)


_USER = frozenset({"user", "input"})
