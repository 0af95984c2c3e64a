"""What a pattern is: the vocabulary of the tables in this package."""

from __future__ import annotations

import enum
from collections.abc import Callable

from msgspec import Struct


class Check(Struct, frozen=True):
    """What must hold for a match to count. `holds` takes the number without separators, in upper case."""

    name: str
    holds: Callable[[str], bool]


class Form(enum.Enum):
    """What a check is given, and where a match may stand."""

    NUMBER = "number"
    """Separators removed, upper case; never a part of a longer number, of a UUID or of a decimal fraction."""

    RUN = "run"
    """As NUMBER, and not after another group of digits either: only the whole of a run of groups counts."""

    ADDRESS = "address"
    """As it is written; not after a letter or digit, nor after a colon or full stop that belongs to the same address."""

    TEXT = "text"
    """As it is written."""


class Pattern(Struct, frozen=True):
    """One way an entity is written.

    `expression` is a regular expression over UTF-8 bytes that both hyperscan and `re` understand, of at most
    `LONGEST_PHRASE_BYTES`. `whole` (for `re` alone) is matched where `expression` began and says how far the match really
    goes: for long or open-ended things, of which `expression` is then only the beginning. If the check
    of such a match fails, it is tried again without its last group, and so on.

    `alone` is the confidence of a match by itself, `backed` with a word of `context` near it.
    """

    name: str
    entity: str
    expression: str
    alone: float
    backed: float
    context: tuple[str, ...] = ()
    check: Check | None = None
    whole: str = ""
    form: Form = Form.NUMBER


LONGEST_PHRASE_BYTES = 96
"""No match with a space inside is longer, but for the `LONGEST_TOKEN_BYTES` ones that say so by how they begin."""

LONGEST_TOKEN_BYTES = 4096
"""No match at all is longer: a private key, a token, a URL."""
