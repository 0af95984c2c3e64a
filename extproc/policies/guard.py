"""Requests that attack the model are refused: injections and jailbreaks in what users say, and in tool results.

Two witnesses, each enough by itself: the rules (`detection.attacks`), which read everything, and the encoder's
injection head, which reads as many windows as the exchange's budget has room for, those first that the rules find
suspicious. The score is that of the likeliest place, so that no padding dilutes it.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections.abc import Sequence
from operator import itemgetter
from typing import Annotated, ClassVar

import pydantic
from msgspec import Struct

from extproc.audit.record import Action
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.detection import attacks
from extproc.detection.attacks import Finding, Findings
from extproc.detection.database import Keep
from extproc.detection.guard_score import score_of
from extproc.detection.normalise import fold
from extproc.detection.standing_out import StandingOut, standing_out
from extproc.dialects.interface import TextSegment
from extproc.operation import Operation
from extproc.policies.audited import Audited
from extproc.policies.context import RequestContext
from extproc.policies.guard_result import GuardResult, Kind
from extproc.policies.interface import CONTINUE, Reject, Services, Verdict
from extproc.policies.scan import Importance, Scan
from extproc.rejection import Rejection, content_filtered

_SCORES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_GENERATING = frozenset({Operation.CHAT, Operation.COMPLETIONS})
_KINDS = {"user": Kind.USER, "input": Kind.USER, "tool": Kind.DOCUMENT}
_REASONS = {Kind.USER: "injection", Kind.DOCUMENT: "indirect_injection", Kind.SYSTEM: "injection"}
_PLACES = {Kind.USER: "The prompt", Kind.DOCUMENT: "A tool result", Kind.SYSTEM: "The system prompt"}


class GuardAction(enum.StrEnum):
    """What becomes of a request whose score is over the threshold."""

    BLOCK = "block"
    FLAG = "flag"


Probability = Annotated[float, pydantic.Field(gt=0, le=1)]


class Settings(PolicySettings):
    """Prompt injection and jailbreak detection; off unless it is switched on."""

    mode: PolicyMode = PolicyMode.OFF
    """`enforce` acts; `shadow` decides and reports but changes nothing; `off` does not run."""

    action: GuardAction = GuardAction.BLOCK
    """`block` refuses the request with 400 `content_filter`; `flag` lets it pass, and says so in the metadata, the
    metrics and the audit log."""

    threshold: Probability = 0.5
    """Score, 0 to 1, from which what users say is an attack."""

    documents_threshold: Probability = 0.5
    """The same for tool results: text that others wrote and that the model is to read."""

    system_prompts: bool = False
    """Judge system prompts too; needed only where callers may write them but aren't trusted."""

    encoder: bool = True
    """Ask the encoder's injection head as well; without it the rules decide alone."""

    inline_limit_chars: Annotated[int, pydantic.Field(ge=0)] = 16384
    """Longer texts are searched in a thread, so that they don't delay the other streams of the worker."""

    @property
    def uses_encoder(self) -> bool:
        return self.encoder


class Judged(Struct):
    """One text and what the rules say of it."""

    kind: Kind
    text: str
    findings: Findings
    injection: float | None = None

    @property
    def score(self) -> float:
        return score_of(self.findings.weight, self.injection)


class Guard:
    name: ClassVar[str] = "guard"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._audited = Audited(self.name, settings, services)
        self._rules = attacks.rules(services.databases)
        self._outstanding = standing_out(services.databases)
        self._thresholds = {
            Kind.USER: settings.threshold,
            Kind.SYSTEM: settings.threshold,
            Kind.DOCUMENT: settings.documents_threshold,
        }
        self._scores = services.metrics.histogram("extproc_guard_score", "The guard's score per request.", _SCORES)
        self._found = services.metrics.counter(
            "extproc_guard_found_total",
            "Requests over the guard's threshold, by the families of rules that spoke (`encoder`: none did).",
            ("family", "kind", "mode"),
        )

    @classmethod
    def prepare(cls, settings: Settings, keep: Keep | None) -> None:
        """Compile its rules, which takes seconds."""
        attacks.rules(keep)
        standing_out(keep)

    async def on_request(self, ctx: RequestContext) -> Verdict:
        if ctx.operation not in _GENERATING:
            return CONTINUE
        segments = [(kind, one) for one in ctx.request.texts() if (kind := self._kind(one)) is not None]
        if sum(len(one.text) for _, one in segments) <= self._settings.inline_limit_chars:
            judged = self._search(segments)
        else:
            judged = await asyncio.to_thread(self._search, segments)
        if self._settings.encoder and ctx.scan is not None and self._over(judged) is None:
            await ask(ctx.scan, judged, self._outstanding)
        return self._decide(ctx, judged)

    def _kind(self, segment: TextSegment) -> Kind | None:
        if segment.role == "system" and self._settings.system_prompts:
            return Kind.SYSTEM
        return _KINDS.get(segment.role)

    def _search(self, segments: Sequence[tuple[Kind, TextSegment]]) -> list[Judged]:
        return [Judged(kind, one.text, self._rules.search(one.text)) for kind, one in segments]

    def _over(self, judged: Sequence[Judged]) -> Judged | None:
        """The one that is furthest over its threshold."""
        over = [one for one in judged if one.score >= self._thresholds[one.kind]]
        return max(over, key=lambda one: one.score, default=None)

    def _decide(self, ctx: RequestContext, judged: Sequence[Judged]) -> Verdict:
        worst = self._over(judged)
        score = max((one.score for one in judged), default=0.0) if worst is None else worst.score
        families = () if worst is None else _families(worst.findings.places[:1])
        coverage = ctx.scan.coverage if ctx.scan is not None and self._settings.encoder else None
        ctx.guard = GuardResult(score, None if worst is None else worst.kind, families, coverage)
        self._scores.observe(score)
        if worst is None:
            return CONTINUE
        reason = _REASONS[worst.kind]
        for family in families:
            self._found.labels(family, worst.kind, self._settings.mode).inc()
        if self._settings.action is GuardAction.FLAG:
            self._audited.decided(ctx, Action.FLAGGED, reason, dict.fromkeys(families, 1))
            return CONTINUE
        self._audited.decided(ctx, Action.BLOCKED, reason, dict.fromkeys(families, 1))
        return Reject(_refusal(worst.kind))


async def ask(scan: Scan, judged: Sequence[Judged], outstanding: StandingOut) -> None:
    """Have the encoder read the texts, and what was disguised in them. Raises DependencyError."""
    excerpts = [[place.excerpt for place in one.findings.places if place.start is None] for one in judged]
    texts = [_plain(one.text) for one in judged]
    for one, text, hidden in zip(judged, texts, excerpts, strict=True):
        scan.want(text)
        for place in one.findings.places:
            if place.start is not None and place.end is not None:
                scan.want(text, Importance.SUSPICIOUS, (place.start, place.end))
        for excerpt in hidden:
            scan.want(excerpt, Importance.SUSPICIOUS)
    await _want_outstanding(scan, texts, outstanding)
    results = iter(await scan.results([*texts, *(excerpt for hidden in excerpts for excerpt in hidden)]))
    for one in judged:
        one.injection = next(results).injection
    for one, hidden in zip(judged, excerpts, strict=True):
        heard = [one.injection, *(next(results).injection for _ in hidden)]
        one.injection = max((told for told in heard if told is not None), default=None)


async def _want_outstanding(scan: Scan, texts: Sequence[str], outstanding: StandingOut) -> None:
    """Where the budget is less than the texts: what stands out of them goes before what is next in line."""
    waiting = [(text, start, end) for text in dict.fromkeys(texts) for start, end in scan.waiting(text)]
    if not 0 < scan.left < len(waiting):
        return
    stretches = [text[start:end] for text, start, end in waiting]
    weights = await asyncio.to_thread(outstanding.weigh, stretches)
    for weight, (text, start, end) in heapq.nlargest(scan.left, zip(weights, waiting, strict=True), key=itemgetter(0)):
        if weight > 0:
            middle = (start + end) // 2  # no other window has it
            scan.want(text, Importance.STANDING_OUT, (middle, middle + 1), weight)


def _plain(text: str) -> str:
    """As the encoder should see it: without lookalikes and invisible characters, where nothing but them made it differ
    from plain Latin letters. Another alphabet stays what it is."""
    if text.isascii():
        return text
    folded = fold(text)
    return folded if folded.isascii() else text


def _families(places: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(family.value for place in places for family in place.families) or ("encoder",)


def _refusal(kind: Kind) -> Rejection:
    return content_filtered(
        f"{_PLACES[kind]} was refused: it looks like an attempt to override the model's instructions.", _REASONS[kind]
    )
