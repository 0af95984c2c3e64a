"""What `redact` does in one exchange: which action each find gets, the placeholders it issued, what it has done so far.

It lives in the exchange's context and no longer, so that no original outlives its exchange. Must not know: where texts
come from, and where they go.
"""

from __future__ import annotations

import enum
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from extproc.detection.pseudonyms import Pseudonyms, draw_nonce
from extproc.detection.replacement import Action, hashed, masked, redacted
from extproc.detection.spans import Span

if TYPE_CHECKING:
    from extproc.policies.redact_answers import AnswerRedactor
    from extproc.policies.redact_names import AnswerNames


class Direction(enum.StrEnum):
    """Which way a text goes."""

    REQUEST = "request"
    RESPONSE = "response"


class Done(Struct, frozen=True):
    """One kind of thing that was done."""

    direction: Direction
    entity: str
    action: Action


class Rules:
    """Which action a find gets in one direction."""

    def __init__(self, default: str, actions: Mapping[str, str]) -> None:
        self._default = Action(default)
        self._actions = {entity: Action(action) for entity, action in actions.items()}

    @property
    def anything(self) -> bool:
        """Whether there is anything to look for."""
        return any(action is not Action.ALLOW for action in (self._default, *self._actions.values()))

    def action(self, entity: str) -> Action:
        return self._actions.get(entity, self._default)

    def acted(self, spans: Sequence[Span]) -> Sequence[Span]:
        """The spans that something is done about."""
        return [span for span in spans if self.action(span.entity) is not Action.ALLOW] if spans else spans


class Redaction:
    """One exchange's. `acts` False: it is only looked at."""

    __slots__ = ("_acts", "_secret", "_team", "answer", "counts", "names", "pseudonyms")

    def __init__(self, team: str, secret: bytes | None, *, acts: bool = True) -> None:
        self._team = team
        self._secret = secret
        self._acts = acts
        self.pseudonyms: Pseudonyms | None = None
        self.counts: Counter[Done] = Counter()
        self.answer: AnswerRedactor | None = None
        self.names: AnswerNames | None = None

    def replacer(self, rules: Rules, direction: Direction, texts: Sequence[str] = ()) -> Callable[[str, str], str]:
        """Gives what takes the place of a find, and keeps count. No placeholder will be in any of `texts`."""

        def replace(entity: str, text: str) -> str:
            action = rules.action(entity)
            self.note(direction, entity, action)
            if action is Action.REDACT:
                return redacted(entity)
            if action is Action.MASK:
                return masked(text)
            if action is Action.PSEUDONYMISE:
                if self.pseudonyms is None:
                    self.pseudonyms = Pseudonyms(draw_nonce(texts, secrets.choice))
                return self.pseudonyms.placeholder(entity, text)
            assert action is Action.HASH, "the others replace nothing"
            assert self._secret is not None, "the settings were checked"
            return hashed(entity, text, self._team, self._secret)

        return replace

    def note(self, direction: Direction, entity: str, action: Action) -> None:
        self.counts[Done(direction, entity, action)] += 1

    @property
    def changed(self) -> int:
        """How many finds were acted upon."""
        return self.counts.total() if self._acts else 0
