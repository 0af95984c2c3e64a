"""The settings of `content_filter`: rules of words, regular expressions and topics."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated

import pydantic

from extproc.config.policy import PolicySettings
from extproc.config.section import Name, Seconds, Section
from extproc.detection.user_rules import BadExpression, UserRule, UserRules, word_rule

Text = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=2000, pattern=r"\S")]


class RuleAction(enum.StrEnum):
    """What becomes of a text that a rule applies to."""

    BLOCK = "block"
    REDACT = "redact"
    FLAG = "flag"


class Side(enum.StrEnum):
    """Which way a text goes."""

    REQUEST = "request"
    ANSWER = "answer"


class Rule(Section):
    """One rule: words, regular expressions or a topic, one of them."""

    words: tuple[Text, ...] = ()
    """Words and phrases, found as whole words in any case."""

    regex: tuple[Text, ...] = ()
    """Regular expressions, found in any case; without look-around and back-references, so that none can be slow."""

    topic: tuple[Text, ...] = ()
    """Example sentences; what is similar to one of them in meaning is on the topic. Needs the encoder."""

    similarity: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.6
    """Cosine similarity to an example from which a text is on the topic."""

    action: RuleAction = RuleAction.BLOCK
    """`block` refuses the request, or ends the answer with `finish_reason: content_filter`; `redact` puts `<RULE>`, the
    rule's name, in the place of what was found; `flag` only counts it."""

    sides: Annotated[tuple[Side, ...], pydantic.Field(min_length=1)] = (Side.REQUEST, Side.ANSWER)
    """`request`, `answer` or both."""

    longest_match_chars: Annotated[int, pydantic.Field(ge=1, le=4096)] = 64
    """Of a regular expression: streams are held back by so much, for a match to be seen before it is sent."""

    @pydantic.model_validator(mode="after")
    def _is_one_kind(self) -> Rule:
        if sum(map(bool, (self.words, self.regex, self.topic))) != 1:
            raise ValueError("give words, regex or topic, one of them")
        if self.topic and self.action is RuleAction.REDACT:
            raise ValueError("a topic can be blocked or flagged, not redacted")
        return self

    @pydantic.field_validator("regex")
    @classmethod
    def _compiles(cls, regex: tuple[str, ...]) -> tuple[str, ...]:
        for number, expression in enumerate(regex):
            try:
                UserRules([UserRule("rule", expression, 1)])
            except BadExpression as error:
                raise ValueError(f"number {number + 1}: {error}") from None
        return regex

    def expressions(self, name: str) -> Iterator[UserRule]:
        """Everything but topics."""
        yield from (word_rule(name, word) for word in self.words)
        yield from (UserRule(name, expression, self.longest_match_chars) for expression in self.regex)


class Settings(PolicySettings):
    """Words, expressions and topics that may not pass, in requests and answers."""

    rules: Mapping[Name, Rule] = {}
    """Rules by name; without any nothing is filtered."""

    system_prompts: bool = False
    """Apply them to system prompts too."""

    topics_deadline_s: Seconds = 1.0
    """An answer's text is compared with topics within so long; a request's within the policy `scan`'s own deadline."""

    inline_limit_chars: Annotated[int, pydantic.Field(ge=0)] = 65536
    """Longer texts are searched in a thread, so that they don't delay the other streams of the worker."""

    @property
    def uses_encoder(self) -> bool:
        return any(rule.topic for rule in self.rules.values())

    def of(self, side: Side) -> Mapping[str, Rule]:
        """The rules that look at what goes this way."""
        return {name: rule for name, rule in self.rules.items() if side in rule.sides}
