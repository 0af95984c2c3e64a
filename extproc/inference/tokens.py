"""Text to the encoder's token ids, and where in the text each came from. Owns the tokenizer and its traps.

The published tokenizer.json cuts at 128 tokens and pads to 128; that is reset. `[SEP]` and its like, written by a
user, are text: nobody but us makes special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from msgspec import Struct

MAX_TOKENS = 512
"""Positions the model has, [CLS] and [SEP] included."""

# Sliced before the tokenizer sees it, so that a text of megabytes costs no more than one that fits; prose of so many
# characters has more tokens than the model has positions.
_MAX_CHARS = 4096
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokens(Struct, eq=False):
    """One text as the model takes it, [CLS] and [SEP] included; all three have the same length.

    `offsets` are code points of the text; `words` numbers the words that the pieces belong to, None for [CLS], [SEP].
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    words: list[int | None]


class Tokenizer:
    """Raises ValueError for a file that is no tokenizer."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"{path} is not a tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True

    def tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]:
        """Of a text that has more than MAX_TOKENS, the beginning."""
        return [self._one(text[:_MAX_CHARS]) for text in texts]

    def _one(self, text: str) -> Tokens:
        if not text.isascii():
            text = _LONE_SURROGATE.sub("\ufffd", text)  # JSON can spell them, UTF-8 can't
        found = self._tokenizer.encode(text)
        ids, offsets, words = found.ids, found.offsets, found.word_ids
        if len(ids) > MAX_TOKENS:
            ids, offsets, words = ([*column[: MAX_TOKENS - 1], column[-1]] for column in (ids, offsets, words))
        return Tokens(ids, offsets, words)
