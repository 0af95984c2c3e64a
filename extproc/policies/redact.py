"""Personal data, in both directions: what is found in a request before it goes to a model, and in the answer as it
passes.

Patterns look at every text and, if it is so configured, the encoder for names: in requests, in whole answers, and in
streams where it may cost them their first sentence's time. An answer's placeholders are turned back, whatever is looked
for. Must not know: any wire format.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from extproc.audit.record import Action as AuditAction
from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.detection.database import Keep
from extproc.detection.patterns import REGIONS
from extproc.detection.placeholders import outside_placeholders
from extproc.detection.replacement import Action
from extproc.detection.scanner import NOT_PERSONAL, PatternScanner, Selection
from extproc.dialects.answer import AnswerEvent, Done
from extproc.dialects.interface import TextSegment, Unread
from extproc.errors import DependencyError
from extproc.policies.audited import Audited
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Termination, Verdict
from extproc.policies.redact_answers import AnswerRedactor, Channel
from extproc.policies.redact_exchange import Direction, Redaction, Rules
from extproc.policies.redact_names import AnswerNames, NameSearch
from extproc.policies.redact_requests import Reading
from extproc.policies.redact_settings import EVERYWHERE, NAMES, Settings, UnreadAction
from extproc.rejection import content_filtered, invalid_request

BLOCKED = "pii_blocked"
"""The reason of a request that was refused, or an answer that was ended, for what was found in it."""

_UNREAD_MESSAGES = {
    Unread.TOKEN_IDS: "Personal data can't be looked for in token ids. Send texts instead.",
    Unread.MEDIA: "Personal data can't be looked for in images, audio, files or bytes, so they are not accepted here.",
}


class Redact:
    """The policy `redact`."""

    name: ClassVar[str] = "redact"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._metrics = services.metrics
        self._encoder = services.encoder
        self._audited = Audited(self.name, settings, services)
        self._scanner = _scanner(selection(settings), services.databases)
        self._requests = Rules(settings.requests.action, settings.requests.actions)
        self._answers = Rules(settings.responses.action, settings.responses.actions)
        self._found = services.metrics.counter(
            "extproc_pii_found_total",
            "Personal data found, by what was done with it.",
            ("entity", "action", "direction", "mode"),
        )
        self._partly_read = services.metrics.counter(
            "extproc_pii_partly_read_total",
            "Requests and answers of which the encoder had no budget to read all; patterns looked at everything.",
            ("direction", "mode"),
        )

    @classmethod
    def prepare(cls, settings: Settings, keep: Keep | None) -> None:
        """Compile its patterns, which takes seconds."""
        _scanner(selection(settings), keep)

    async def on_request(self, ctx: RequestContext) -> Verdict:
        refusal = self._unread(ctx)
        if refusal is not None:
            return refusal
        ctx.redaction = redaction = self._begin(ctx)
        if not self._requests.anything:
            return CONTINUE
        segments = [*ctx.request.texts(), *ctx.request.labels()]
        if sum(len(segment.text) for segment in segments) <= self._settings.inline_limit_chars:
            readings = self._read(segments)
        else:
            readings = await asyncio.to_thread(self._read, segments)
        if self._settings.names:
            await self._find_names(ctx, readings)
        blocked = self._blocked(readings, redaction)
        if blocked:
            return Reject(content_filtered(f"The request holds personal data: {', '.join(blocked)}.", BLOCKED))
        replace = redaction.replacer(self._requests, Direction.REQUEST, [reading.text for reading in readings])
        changed = [reading.replaced(replace) for reading in readings if reading.spans]
        if changed and self._enforced:
            ctx.request.replace_texts(changed)
        if redaction.pseudonyms and self._enforced:
            ctx.not_for_others.add(self.name)  # what is put back is this client's
        return CONTINUE

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
        redaction = ctx.redaction
        if redaction is None:  # `on_request` failed open, or the request has not come that far
            redaction = ctx.redaction = self._begin(ctx)
        redactor = redaction.answer
        if redactor is None:
            if not (self._answers.anything or redaction.pseudonyms):
                return events
            redactor = redaction.answer = self._redactor(ctx, redaction)
        passed = await redactor.pass_on(events)
        if redactor.cut and self._enforced and passed and type(passed[-1]) is Done and not ctx.reason:
            ctx.reason = BLOCKED
        return passed

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        if ctx.redaction is None:
            return
        if ctx.redaction.names is not None and ctx.redaction.names.partly_read:
            self._partly_read.labels(Direction.RESPONSE, self._settings.mode).inc()
        blocked: Counter[str] = Counter()
        replaced: Counter[str] = Counter()
        for done, count in ctx.redaction.counts.items():
            self._found.labels(done.entity, done.action, done.direction, self._settings.mode).inc(count)
            (blocked if done.action is Action.BLOCK else replaced)[done.entity] += count
        if blocked:
            self._audited.decided(ctx, AuditAction.BLOCKED, BLOCKED, blocked)
        if replaced:
            self._audited.decided(ctx, AuditAction.REDACTED, entities=replaced)

    def _begin(self, ctx: RequestContext) -> Redaction:
        return Redaction(ctx.principal.team, self._settings.secret, acts=self._enforced)

    def _unread(self, ctx: RequestContext) -> Reject | None:
        rules = self._settings.requests
        actions = {Unread.TOKEN_IDS: rules.token_ids, Unread.MEDIA: rules.media}
        for what in sorted(ctx.request.unread()):
            if actions[what] is UnreadAction.REFUSE and self._requests.anything:
                return Reject(invalid_request(_UNREAD_MESSAGES[what], code="unsupported_value", reason="pii_unread"))
        return None

    def _read(self, segments: Sequence[TextSegment]) -> list[Reading]:
        readings = [Reading(segment) for segment in segments]
        for reading in readings:
            reading.add(self._requests.acted(self._scanner.scan(reading.text)))
        return readings

    async def _find_names(self, ctx: RequestContext, readings: Sequence[Reading]) -> None:
        """What the encoder finds, where patterns found nothing. Raises DependencyError."""
        try:
            if ctx.scan is None:
                raise DependencyError("encoder", "the policy `scan` is off")
            scanned = await ctx.scan.results([reading.text for reading in readings])
        except DependencyError as error:
            self._lost_encoder(ctx, error)
            return
        least = self._settings.minimum_confidence
        for reading, one in zip(readings, scanned, strict=True):
            names = self._requests.acted([span for span in one.spans() if span.confidence >= least])
            reading.add(outside_placeholders(reading.text, names))
        if not all(one.complete for one in scanned):
            self._partly_read.labels(Direction.REQUEST, self._settings.mode).inc()

    def _lost_encoder(self, ctx: RequestContext, error: DependencyError) -> None:
        """Patterns go on alone, or it is raised again."""
        if self._settings.on_failure is FailureMode.CLOSED:
            raise error
        ctx.degraded.add(self.name)
        self._metrics.dependency_failed(self.name, error.dependency)

    def _blocked(self, readings: Sequence[Reading], redaction: Redaction) -> list[str]:
        """The kinds of what must not pass."""
        blocked: set[str] = set()
        for reading in readings:
            for span in reading.spans:
                if self._requests.action(span.entity) is Action.BLOCK:
                    blocked.add(span.entity)
                    redaction.note(Direction.REQUEST, span.entity, Action.BLOCK)
        return sorted(blocked)

    def _redactor(self, ctx: RequestContext, redaction: Redaction) -> AnswerRedactor:
        open_stream = self._scanner.open if self._answers.anything else None
        replace = redaction.replacer(self._answers, Direction.RESPONSE)
        search = self._name_search(stream=ctx.request.stream)
        if search is not None:
            redaction.names = AnswerNames(search, functools.partial(self._lost_encoder, ctx))

        def channel(json: bool) -> Channel:
            names = None if redaction.names is None else redaction.names.open()
            return Channel(open_stream, self._answers, replace, redaction.pseudonyms, json=json, names=names)

        def blocked(entity: str) -> None:
            redaction.note(Direction.RESPONSE, entity, Action.BLOCK)

        return AnswerRedactor(channel, blocked, ctx.request.choices, stream=ctx.request.stream)

    def _name_search(self, *, stream: bool) -> NameSearch | None:
        """None where answers are not searched for names."""
        names = self._settings.responses.names
        if not self._settings.names or self._encoder is None or (stream and not names.streams):
            return None
        if all(self._answers.action(entity) is Action.ALLOW for entity in NAMES):
            return None
        least = self._settings.minimum_confidence
        return NameSearch(
            self._encoder, self._answers, least, names.piece_chars, names.budget_windows, names.deadline_s
        )


def selection(settings: Settings) -> Selection:
    """What to look for: all that some action is for, and what is not personal by itself only if it is named."""
    sides = (settings.requests, settings.responses)
    named = {entity for side in sides for entity in side.actions}
    regions = EVERYWHERE.union(settings.regions or REGIONS)
    entities = {pattern.entity for region in regions for pattern in REGIONS[region]} - (NOT_PERSONAL - named)
    wanted = {entity for entity in entities if any(side.actions.get(entity, side.action) != "allow" for side in sides)}
    return Selection(frozenset(wanted), regions, settings.minimum_confidence)


@functools.lru_cache(maxsize=4)
def _scanner(selection: Selection, keep: Keep | None) -> PatternScanner:
    """Compiled once: a reload that changes nothing here costs nothing."""
    return PatternScanner.compile(selection, keep)
