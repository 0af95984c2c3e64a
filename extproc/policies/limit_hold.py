"""What one exchange has reserved, and how much of it its stream has used so far.

Must not know: where reservations are made, nor any policy but `limit`, whose memory of an exchange this is.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Usage
from extproc.limits import Measure
from extproc.policies.limit_rules import Applied, Size, settled

_CHARS_PER_TOKEN = 4
_STEP_TOKENS = 64
_DRAWN = frozenset({Measure.TOKENS, Measure.OUTPUT_TOKENS, Measure.MONEY})


class Hold(Struct):
    """`size` is what is reserved. `admitted` False: the attempt was counted and refused."""

    admitted: bool
    applied: Sequence[Applied] = ()
    size: Size = Size(0, 0)
    cap_tokens: int = 0
    choices: int = 1
    spent: bool = False
    pieces: int = 0
    chars: int = 0
    reported: int = 0
    unfinished: set[int] = set()
    finished: int = 0
    ended: bool = False

    def watch(self, events: Sequence[AnswerEvent]) -> None:
        """Keep count of what passes. Servers send a token or more in a piece; the exact count comes at the end."""
        for event in events:
            if type(event) is Delta:
                self._watch_piece(event)
            elif type(event) is Usage:
                self.reported = max(self.reported, event.completion_tokens or 0)
            elif type(event) is Done or type(event) is Failed:
                self.ended = True

    def _watch_piece(self, piece: Delta) -> None:
        length = len(piece.text) + len(piece.reasoning)
        if length or piece.tool_calls:
            self.pieces += 1
            self.chars += length
        if piece.finish_reason is None:
            self.unfinished.add(piece.index)
            return
        self.unfinished.discard(piece.index)
        self.finished += 1
        self.ended = self.ended or self.finished >= self.choices

    def owed(self, size: Size | None) -> list[int]:
        """What each charge is settled to. None: nothing is charged. Nothing where nothing was taken."""
        if not self.admitted:
            return []
        return [settled(one.limit.measure, size) for one in self.applied]

    @property
    def used_tokens(self) -> int:
        """About how long the answer is by now."""
        return max(self.pieces, self.chars // _CHARS_PER_TOKEN, self.reported)

    @property
    def outrun(self) -> bool:
        """The answer is longer than what is reserved for it, and may become longer."""
        if self.used_tokens <= self.size.output_tokens or self.spent or self.ended:
            return False
        return any(one.limit.measure in _DRAWN for one in self.applied)

    def next_size(self) -> Size:
        """What to have reserved next: half as much again, or what is used already, and no more than can come."""
        had, used = self.size, self.used_tokens
        wanted = max(used, had.output_tokens + max(_STEP_TOKENS, had.output_tokens // 2))
        return structs.replace(had, output_tokens=max(used, min(wanted, self.cap_tokens)))

    def more(self, size: Size) -> list[int]:
        """What each charge grows by, up to this size."""
        return [size.of(one.limit.measure) - self.size.of(one.limit.measure) for one in self.applied]
