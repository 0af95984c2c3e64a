"""Tokenizers behind one small interface: built-in BPE, tiktoken rank files, `tokenizer.json`, SentencePiece.

All of them only count. Text is never searched for special tokens unless it is a rendered prompt, in which
special tokens can only come from the template (`templates` sees to that). tiktoken and Hugging Face's library let go
of the GIL while they work; rs-bpe does not, and gets long texts in slices.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tiktoken
import tokenizers

_ENDOFTEXT = "<|endoftext|>"
_SLICE_CHARS = 1 << 15
_BOUNDARY = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"

PATTERNS = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
        r"|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "o200k_base": (
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{_CONTRACTIONS}?"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{_CONTRACTIONS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen": (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "llama3": (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
}
"""How text is split before byte pairs are merged, by the vocabulary's family. p50k and r50k split as gpt2 does."""
PATTERNS["p50k_base"] = PATTERNS["r50k_base"] = PATTERNS["gpt2"]


class Encoding(Protocol):
    """Counts tokens. `special_tokens`: strings that stand for one token in a rendered prompt."""

    special_tokens: frozenset[str]
    begin: str
    """The token at the start of every prompt, as a string; empty when there is none."""

    def count(self, text: str) -> int:
        """Plain text: nothing in it is special, nothing is added."""

    def count_prompt(self, text: str) -> int:
        """Plain text as a prompt or an input of its own, with what the model adds around it."""

    def count_rendered(self, text: str) -> int:
        """A rendered prompt: special tokens count one each."""


def special_pattern(special_tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of them, the longest first."""
    ordered = sorted(filter(None, special_tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


class _Split(ABC):
    """For tokenizers that know no special tokens: the text between them is counted piece by piece."""

    begin = ""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        self.special_tokens = frozenset(special_tokens)
        self._specials = special_pattern(self.special_tokens)

    @abstractmethod
    def count(self, text: str) -> int: ...

    def count_prompt(self, text: str) -> int:
        return self.count(text)

    def count_rendered(self, text: str) -> int:
        if self._specials is None:
            return self.count(text)
        pieces = self._specials.split(text)
        return len(pieces) - 1 + sum(self.count(piece) for piece in pieces if piece)


class BuiltInBpe(_Split):
    """cl100k_base or o200k_base, vocabulary included in rs-bpe."""

    def __init__(self, name: str, special_tokens: Iterable[str]) -> None:
        super().__init__({_ENDOFTEXT, *special_tokens})
        # Imported here because the module decompresses its vocabularies, which takes long.
        from rs_bpe.bpe import openai

        makers = {"cl100k_base": openai.cl100k_base, "o200k_base": openai.o200k_base}
        self._tokenizer = makers[name]()

    def count(self, text: str) -> int:
        if len(text) <= _SLICE_CHARS:
            return int(self._tokenizer.count(text))
        return sum(self._tokenizer.count(piece) for piece in _slices(text))


def _slices(text: str) -> Iterator[str]:
    """rs-bpe holds the GIL: long texts go in slices, so that other threads get their turn between them. Both patterns
    always split between a Latin letter and a space before another letter, so the count is that of the whole."""
    start = 0
    while boundary := _BOUNDARY.search(text, start + _SLICE_CHARS):
        yield text[start : boundary.start()]
        start = boundary.start()
    yield text[start:]


class RankFile(_Split):
    """A tiktoken rank file. Raises ValueError for a file that is not one and a pattern that is not known."""

    def __init__(self, path: Path, pattern: str, special_tokens: Iterable[str]) -> None:
        super().__init__({_ENDOFTEXT, *special_tokens})
        if pattern not in PATTERNS:
            raise ValueError(f"there is no pattern {pattern}; known are {', '.join(sorted(PATTERNS))}")
        self._encoding = tiktoken.Encoding(
            path.name, pat_str=PATTERNS[pattern], mergeable_ranks=_ranks(path), special_tokens={}
        )

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))


def _ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"{path}:{number} is not a line of a tiktoken rank file") from None
    if len(ranks) < 256:
        raise ValueError(f"{path} is not a tiktoken rank file: it does not even have every byte")
    return ranks


class HuggingFace:
    """A `tokenizer.json`, without the truncation and padding that may be baked into it."""

    def __init__(self, path: Path, special_tokens: Iterable[str]) -> None:
        try:
            self._plain = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path} is not a tokenizer.json: {error}") from None
        self._plain.no_truncation()
        self._plain.no_padding()
        # A second one, because this switch belongs to the tokenizer and threads share it.
        self._rendered = tokenizers.Tokenizer.from_str(self._plain.to_str())
        self._plain.encode_special_tokens = True
        added = self._plain.get_added_tokens_decoder().values()
        self.special_tokens = frozenset({token.content for token in added if token.special} | set(special_tokens))
        self.begin = _begin_token(path)

    def count(self, text: str) -> int:
        return _length(self._plain, text, add_special_tokens=False)

    def count_prompt(self, text: str) -> int:
        return _length(self._plain, text, add_special_tokens=True)

    def count_rendered(self, text: str) -> int:
        return _length(self._rendered, text, add_special_tokens=False)


def _length(tokenizer: tokenizers.Tokenizer, text: str, *, add_special_tokens: bool) -> int:
    """Only the batch calls let go of the GIL, and the fast one leaves out offsets, a fifth of the time."""
    return len(tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0])


def _begin_token(path: Path) -> str:
    """`bos_token` of the `tokenizer_config.json` that is published beside a `tokenizer.json`."""
    config = path.with_name("tokenizer_config.json")
    try:
        token: Any = json.loads(config.read_bytes()).get("bos_token")
    except (OSError, ValueError, AttributeError):
        return ""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


class SentencePiece(_Split):
    """A SentencePiece model. Text between special tokens is encoded piece by piece, each with its own prefix space."""

    def __init__(self, path: Path, special_tokens: Iterable[str]) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path} is not a SentencePiece model: {error}") from None
        control = {
            self._processor.id_to_piece(index)
            for index in range(self._processor.get_piece_size())
            if self._processor.is_control(index)
        }
        super().__init__({*control, *special_tokens})
        begin = self._processor.bos_id()
        self.begin = self._processor.id_to_piece(begin) if begin >= 0 else ""

    def count(self, text: str) -> int:
        return len(self._processor.encode(text, out_type=int))

    def count_prompt(self, text: str) -> int:
        return self.count(text) + bool(self.begin)
