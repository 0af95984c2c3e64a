"""Two texts to one sequence of token ids: [CLS] one [SEP] other [SEP]. Owns what happens to long ones."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from extproc.inference.tokens import MAX_TOKENS, Tokenizer


class PairTokens(Struct, eq=False):
    """`types` is 0 on the first text, 1 on the second; both lists have the same length, at most MAX_TOKENS."""

    ids: list[int]
    types: list[int]


class PairTokenizer:
    """Raises ValueError for a file that is no tokenizer."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer(path)

    def pair(self, one: str, other: str) -> PairTokens | None:
        """None where the two don't fit the model together: half a text must not be judged."""
        first, second = self._tokenizer.tokenize([one, other])
        ids, rest = first.ids, second.ids[1:]
        if len(ids) + len(rest) > MAX_TOKENS:
            return None
        return PairTokens(ids + rest, [0] * len(ids) + [1] * len(rest))
