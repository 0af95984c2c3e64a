"""An answer as `redact` lets it pass: originals put back, finds replaced, in pieces that may come cut anywhere.

Each choice's reasoning, text and tool calls are texts of their own; what may still grow into a find is held back until
it can't, until another of the choice's texts goes on, or until the choice ends. Must not know: any wire format, nor
what the finds are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from extproc.detection.pseudonyms import Pseudonyms, Restorer
from extproc.detection.replacement import Action, replaced
from extproc.detection.runs import JsonReader, Replace, Run, RunQueue, write
from extproc.detection.spans import Span
from extproc.detection.stream import Segment, TextStream
from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed
from extproc.policies.redact_exchange import Rules
from extproc.policies.redact_names import TextNames

FILTERED = "content_filter"
"""The finish reason of a choice that was ended."""

_REASONING, _TEXT, _REFUSAL = "reasoning", "text", "refusal"
_Speaker = str | int  # one of the three, or the index of a tool call


class Channel:
    """One text. What was released reads the same however the text was cut."""

    __slots__ = (
        "_names",
        "_open",
        "_queue",
        "_reader",
        "_replace",
        "_restorer",
        "_rules",
        "_stream",
        "blocked",
        "touched",
    )

    def __init__(
        self,
        open_stream: Callable[[], TextStream] | None,
        rules: Rules,
        replace: Replace,
        pseudonyms: Pseudonyms | None,
        *,
        json: bool,
        names: TextNames | None = None,
    ) -> None:
        self._names = names
        self._open = open_stream
        self._stream: TextStream | None = None
        self._rules = rules
        self._replace = replace
        self._reader = JsonReader() if json else None
        self._restorer = Restorer(pseudonyms) if pseudonyms else None
        self._queue = RunQueue() if self._reader or self._restorer else None
        self.blocked: str | None = None
        self.touched = False

    async def feed(self, piece: str) -> str:
        """What may be released after this piece. Waits only where names are looked for; then raises what that does."""
        if self._queue is None:
            return await self._scan(piece)
        runs = [Run(piece, piece)] if self._reader is None else self._reader.feed(piece)
        return await self._pass(runs if self._restorer is None else self._restorer.feed(runs))

    async def flush(self) -> str:
        """Everything that is still held. What comes after it is looked at by itself."""
        written = ""
        if self._queue is not None:
            runs = [] if self._reader is None else self._reader.finish()
            if self._restorer is not None:
                runs = [*self._restorer.feed(runs), *self._restorer.finish()]
            written = await self._pass(runs)
        if self._stream is None:
            return written
        stream, self._stream = self._stream, None
        segments: Sequence[Segment] = stream.close()
        if self._names is not None:
            segments = await self._names.finish(segments)
        return written + self._write(segments)

    async def _pass(self, runs: Sequence[Run]) -> str:
        assert self._queue is not None, "texts without runs are scanned as they are"
        self.touched = self.touched or (self._restorer is not None and self._restorer.restored > 0)
        if self._open is None:
            return "".join([run.raw for run in runs])
        self._queue.put(runs)
        return await self._scan("".join([run.text for run in runs]))

    async def _scan(self, text: str) -> str:
        if self._stream is None:
            assert self._open is not None, "there is something to look for, or runs to restore"
            self._stream = self._open()
        segments: Sequence[Segment] = self._stream.feed(text)
        if self._names is not None:
            segments = await self._names.add(segments)
        return self._write(segments)

    def _write(self, segments: Sequence[Segment]) -> str:
        return "".join([self._written(segment.text, self._rules.acted(segment.spans)) for segment in segments])

    def _written(self, text: str, spans: Sequence[Span]) -> str:
        if self.blocked is not None:
            return ""
        for position, span in enumerate(spans):
            if self._rules.action(span.entity) is Action.BLOCK:
                self.blocked = span.entity
                text, spans = text[: span.start], spans[:position]
                break
        self.touched = self.touched or bool(spans) or self.blocked is not None
        if self._queue is not None:
            return write(self._queue, text, spans, self._replace)
        return replaced(text, spans, self._replace) if spans else text


class _Choice:
    """The texts of one choice; `speaker` is whose pieces came last."""

    __slots__ = ("channels", "cut", "finished", "speaker")

    def __init__(self) -> None:
        self.channels: dict[_Speaker, Channel] = {}
        self.speaker: _Speaker | None = None
        self.finished = False
        self.cut = False

    @property
    def blocked(self) -> str | None:
        return next((channel.blocked for channel in self.channels.values() if channel.blocked is not None), None)

    @property
    def touched(self) -> bool:
        return any(channel.touched for channel in self.channels.values())


class _Piece:
    """A delta in the making."""

    __slots__ = ("_calls", "_said")

    def __init__(self) -> None:
        self._said: dict[_Speaker, str] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def say(self, speaker: _Speaker, text: str) -> None:
        if not text:
            return
        if not isinstance(speaker, int):
            self._said[speaker] = self._said.get(speaker, "") + text
        else:
            function = self._calls.setdefault(speaker, {"index": speaker}).setdefault("function", {})
            function["arguments"] = function.get("arguments", "") + text

    def introduce(self, index: int, fragment: dict[str, Any], name: str | None) -> None:
        """What a fragment says of its call besides arguments; of anything else it is not known what is in it."""
        told = {key: fragment[key] for key in ("id", "type") if fragment.get(key) is not None}
        if name is not None:
            told["function"] = {"name": name, "arguments": ""}
        if told:
            self._calls.setdefault(index, {"index": index}).update(told)

    def __bool__(self) -> bool:
        return bool(self._said or self._calls)

    def delta(self, index: int, role: str | None, logprobs: dict[str, Any] | None, finish_reason: str | None) -> Delta:
        said, calls = self._said, list(self._calls.values()) or None
        text, reasoning, refusal = said.get(_TEXT, ""), said.get(_REASONING, ""), said.get(_REFUSAL, "")
        return Delta(index, text, reasoning, role, calls, logprobs, finish_reason, None, refusal)


class AnswerRedactor:
    """One answer. `channel` opens a text, of JSON or not; `blocked` is told of each entity that ended a choice.

    `cut` is true once a choice was ended by a find.
    """

    def __init__(
        self, channel: Callable[[bool], Channel], blocked: Callable[[str], None], choices: int, *, stream: bool
    ) -> None:
        self._channel = channel
        self._blocked = blocked
        self._expected = choices
        self._stream = stream
        self._choices: dict[int, _Choice] = {}
        self.cut = False

    async def pass_on(self, events: Sequence[AnswerEvent]) -> list[AnswerEvent]:
        """What may go to the client now."""
        passed: list[AnswerEvent] = []
        for event in events:
            if type(event) is Delta:
                await self._delta(event, passed)
                continue
            if type(event) is Done or type(event) is Failed:
                await self._flush(passed)
            passed.append(await self._failure(event) if type(event) is Failed else event)
            if type(event) is Done:
                return passed
        if self.cut and self._stream and sum(one.finished for one in self._choices.values()) >= self._expected:
            passed.append(Done())  # the upstream has nothing more to say that anybody will hear
        return passed

    async def _delta(self, delta: Delta, passed: list[AnswerEvent]) -> None:
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = _Choice()
        if choice.cut:
            return
        piece = _Piece()
        if delta.reasoning:
            await self._say(choice, piece, _REASONING, delta.reasoning)
        if delta.text:
            await self._say(choice, piece, _TEXT, delta.text)
        if delta.refusal:
            await self._say(choice, piece, _REFUSAL, delta.refusal)
        if delta.tool_calls:
            await self._call(choice, piece, delta.tool_calls)
        if delta.finish_reason is not None:
            choice.finished = True
            await _flush(choice, piece)
        finish_reason = FILTERED if self._cuts(choice) else delta.finish_reason
        if piece or delta.role is not None or finish_reason is not None:
            # Written anew though nothing may have changed: its bytes may hold what isn't read here.
            logprobs = None if self._stream or choice.touched else delta.logprobs
            passed.append(piece.delta(delta.index, delta.role, logprobs, finish_reason))

    async def _say(self, choice: _Choice, piece: _Piece, speaker: _Speaker, text: str) -> None:
        if choice.speaker != speaker:
            if choice.speaker is not None:
                piece.say(choice.speaker, await choice.channels[choice.speaker].flush())
            choice.speaker = speaker
        channel = choice.channels.get(speaker)
        if channel is None:
            channel = choice.channels[speaker] = self._channel(isinstance(speaker, int))
        piece.say(speaker, await channel.feed(text))

    async def _call(self, choice: _Choice, piece: _Piece, fragments: Sequence[dict[str, Any]]) -> None:
        for position, fragment in enumerate(fragments):
            index = fragment.get("index", position)
            if not isinstance(index, int):
                continue
            function = fragment.get("function") or {}
            piece.introduce(index, fragment, function.get("name"))
            await self._say(choice, piece, index, str(function.get("arguments") or ""))

    def _cuts(self, choice: _Choice) -> bool:
        """A find has just ended this choice."""
        entity = choice.blocked
        if entity is None:
            return False
        choice.cut = choice.finished = self.cut = True
        self._blocked(entity)
        return True

    async def _flush(self, passed: list[AnswerEvent]) -> None:
        """The answer ends: what is held of choices that never finished goes first."""
        for index, choice in self._choices.items():
            if choice.cut:
                continue
            piece = _Piece()
            await _flush(choice, piece)
            finish_reason = FILTERED if self._cuts(choice) else None
            if piece or finish_reason is not None:
                passed.append(piece.delta(index, None, None, finish_reason))

    async def _failure(self, failure: Failed) -> Failed:
        """A model server may repeat in its complaint what it was sent."""
        channel = self._channel(False)
        message = await channel.feed(failure.rejection.message) + await channel.flush()
        return Failed(dataclasses.replace(failure.rejection, message=message))


async def _flush(choice: _Choice, piece: _Piece) -> None:
    for speaker, channel in choice.channels.items():
        piece.say(speaker, await channel.flush())
