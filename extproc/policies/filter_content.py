"""An operator's content rules, on what is asked and on what is answered: blocked, redacted or flagged.

Answers are filtered as they pass, in pieces of any size, with as much held back as the longest match has room in; a
choice that turns bad ends there with `finish_reason: content_filter`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from extproc.audit.record import Action
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.detection import replacement
from extproc.detection.replacement import redacted, replaced
from extproc.detection.spans import Span
from extproc.detection.stream import Segment, TextStream
from extproc.detection.topics import Topic, topic_of
from extproc.detection.user_rules import UserRules
from extproc.dialects.answer import AnswerEvent, Delta, Done
from extproc.dialects.interface import TextSegment
from extproc.errors import DependencyError
from extproc.policies.audited import Audited
from extproc.policies.content_rules import Rule, RuleAction, Settings, Side
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Termination, Verdict
from extproc.policies.redact_answers import FILTERED, AnswerRedactor, Channel
from extproc.policies.redact_exchange import Rules
from extproc.rejection import content_filtered

BLOCKED = "content_rule"
"""The reason of what was refused or ended."""

_ACTIONS = {
    RuleAction.BLOCK: replacement.Action.BLOCK,
    RuleAction.REDACT: replacement.Action.REDACT,
    RuleAction.FLAG: replacement.Action.ALLOW,
}
_TOPIC_EVERY_CHARS = 400


class _Side:
    """The rules that look at what goes one way."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        expressions = [one for name, rule in rules.items() for one in rule.expressions(name)]
        self.scanner = UserRules(expressions) if expressions else None
        self.topics = {name: rule for name, rule in rules.items() if rule.topic}
        self.actions = Rules("allow", {name: _ACTIONS[rule.action] for name, rule in rules.items()})
        self.rules = rules


class Filtering:
    """What was done in one exchange, and its answer in the making."""

    __slots__ = ("answer", "counts", "unread", "watched")

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Side]] = Counter()
        self.answer: AnswerRedactor | None = None
        self.watched: dict[int, str] = {}
        self.unread: dict[int, int] = {}


class FilterContent:
    """The policy `content_filter`."""

    name: ClassVar[str] = "content_filter"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._encoder = services.encoder
        self._audited = Audited(self.name, settings, services)
        self._request = _Side(settings.of(Side.REQUEST))
        self._answer = _Side(settings.of(Side.ANSWER))
        self._roles = {"user", "input", "tool", "assistant"} | ({"system"} if settings.system_prompts else set())
        self._topics: dict[str, Topic] | None = None
        self._found = services.metrics.counter(
            "extproc_content_found_total", "What content rules found, by what was done.",
            ("rule", "action", "side", "mode"),
        )  # fmt: skip

    async def on_request(self, ctx: RequestContext) -> Verdict:
        side = self._request
        if not side.rules:
            return CONTINUE
        ctx.filtering = filtering = Filtering()
        segments = [one for one in ctx.request.texts() if one.role in self._roles]
        if sum(len(one.text) for one in segments) <= self._settings.inline_limit_chars:
            found = self._scan(segments)
        else:
            found = await asyncio.to_thread(self._scan, segments)
        on_topic = await self._on_topic(ctx, segments)
        filtering.counts.update((span.entity, Side.REQUEST) for _, spans in found for span in spans)
        filtering.counts.update((name, Side.REQUEST) for name in on_topic)
        blocking = sorted(n for n, _ in filtering.counts if side.rules[n].action is RuleAction.BLOCK)
        if blocking:
            return Reject(content_filtered(f"The request breaks the content rule {blocking[0]}.", BLOCKED))
        changed = [self._redacted(one, spans) for one, spans in found]
        if self._enforced:
            ctx.request.replace_texts([one for one in changed if one is not None])
        return CONTINUE

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
        side = self._answer
        if not side.rules:
            return events
        if ctx.filtering is None:
            ctx.filtering = Filtering()
        filtering = ctx.filtering
        passed = list(events)
        if side.scanner is not None:
            if filtering.answer is None:
                filtering.answer = self._redactor(ctx, side.scanner.open, filtering)
            passed = await filtering.answer.pass_on(events)
        if side.topics:
            passed = await self._watch_topics(ctx, filtering, passed)
        cut = any(type(one) is Delta and one.finish_reason == FILTERED for one in passed)
        if cut and self._enforced and not ctx.reason:
            ctx.reason = BLOCKED
        return passed

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        if ctx.filtering is None:
            return
        done: dict[RuleAction, Counter[str]] = {action: Counter() for action in RuleAction}
        for (name, side), count in ctx.filtering.counts.items():
            action = self._settings.rules[name].action
            self._found.labels(name, action, side, self._settings.mode).inc(count)
            done[action][name] += count
        for action, told in zip(RuleAction, (Action.BLOCKED, Action.REDACTED, Action.FLAGGED), strict=True):
            if done[action]:
                self._audited.decided(ctx, told, BLOCKED, done[action])

    # Requests.

    def _scan(self, segments: Sequence[TextSegment]) -> list[tuple[TextSegment, list[Span]]]:
        scanner = self._request.scanner
        return [] if scanner is None else [(one, scanner.scan(one.text)) for one in segments]

    def _redacted(self, segment: TextSegment, spans: Sequence[Span]) -> TextSegment | None:
        acted = self._request.actions.acted(spans)
        if not acted:
            return None
        return TextSegment(segment.role, replaced(segment.text, acted, _placeholder), segment.locator)

    async def _on_topic(self, ctx: RequestContext, segments: Sequence[TextSegment]) -> list[str]:
        """Raises DependencyError."""
        if not self._request.topics:
            return []
        if ctx.scan is None:
            raise DependencyError("encoder", "the policy `scan` is off")
        topics = await self._known_topics()
        scanned = await ctx.scan.results([one.text for one in segments])
        embeddings = [window.encoding.embedding for one in scanned for window in one.windows]
        name = topic_of(embeddings, {name: topics[name] for name in self._request.topics})
        return [] if name is None else [name]

    async def _known_topics(self) -> Mapping[str, Topic]:
        """The examples, encoded once."""
        if self._topics is None:
            if self._encoder is None:
                raise DependencyError("encoder", "there is none")
            known = {}
            for name, rule in self._settings.rules.items():
                if rule.topic:
                    encoded = await self._encoder.encode(rule.topic, self._settings.topics_deadline_s)
                    known[name] = Topic(tuple(one.embedding for one in encoded), rule.similarity)
            self._topics = known
        return self._topics

    # Answers.

    def _redactor(self, ctx: RequestContext, opened: Callable[[], TextStream], filtering: Filtering) -> AnswerRedactor:
        def channel(json: bool) -> Channel:
            return Channel(lambda: _Counted(opened(), filtering), self._answer.actions, _placeholder, None, json=json)

        return AnswerRedactor(channel, lambda _: None, ctx.request.choices, stream=ctx.request.stream)

    async def _watch_topics(
        self, ctx: RequestContext, filtering: Filtering, events: Sequence[AnswerEvent]
    ) -> list[AnswerEvent]:
        """Every few hundred characters, and at the end, what came lately is compared with the topics."""
        passed: list[AnswerEvent] = []
        for event in events:
            if type(event) is Delta:
                name = await self._topic_of(filtering, event)
                if name is not None:
                    filtering.counts[name, Side.ANSWER] += 1
                    if self._answer.rules[name].action is RuleAction.BLOCK:
                        end = Delta(event.index, role=event.role, finish_reason=FILTERED)
                        return [*passed, end, Done()] if ctx.request.stream else _withheld(events)
            passed.append(event)
        return passed

    async def _topic_of(self, filtering: Filtering, delta: Delta) -> str | None:
        index = delta.index
        text = filtering.watched.get(index, "") + delta.text
        unread = filtering.unread.get(index, 0) + len(delta.text)
        due = unread >= _TOPIC_EVERY_CHARS or (delta.finish_reason is not None and unread > 0)
        filtering.watched[index], filtering.unread[index] = text[-2 * _TOPIC_EVERY_CHARS :], 0 if due else unread
        if not due:
            return None
        topics = await self._known_topics()
        assert self._encoder is not None, "it encoded the examples"
        texts = [text[start:end] for start, end in self._encoder.windows(text)]
        encoded = await self._encoder.encode(texts, self._settings.topics_deadline_s)
        return topic_of([one.embedding for one in encoded], {name: topics[name] for name in self._answer.topics})


class _Counted:
    """A stream whose finds are counted as they are released."""

    def __init__(self, stream: TextStream, filtering: Filtering) -> None:
        self._stream = stream
        self._filtering = filtering

    def feed(self, piece: str) -> list[Segment]:
        return self._count(self._stream.feed(piece))

    def close(self) -> list[Segment]:
        return self._count(self._stream.close())

    def _count(self, segments: list[Segment]) -> list[Segment]:
        self._filtering.counts.update((span.entity, Side.ANSWER) for one in segments for span in one.spans)
        return segments


def _placeholder(rule: str, _text: str) -> str:
    return redacted(rule.upper())


def _withheld(events: Sequence[AnswerEvent]) -> list[AnswerEvent]:
    """A whole answer without what it says."""
    return [Delta(one.index, role=one.role, finish_reason=FILTERED) if type(one) is Delta else one for one in events]
