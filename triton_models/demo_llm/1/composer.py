"""What the model says: a pure function of the prompt and the seed. Owns: words, length, token ids.

The text is English-shaped nonsense with multi-byte characters sprinkled in, because those are what
breaks streaming code. Token ids are such that encoding the whole text again gives as many tokens.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_SUBJECTS = (
    "The gateway", "A patient proxy", "The café in Zürich", "Every request", "Our naïve cache", "The scheduler",
    "A quiet token", "The 日本語 tokenizer", "One small model", "The façade", "Señor Núñez", "The river of bytes",
)  # fmt: skip
_VERBS = (
    "considers", "forwards", "remembers", "quietly counts", "answers", "politely refuses", "measures", "balances",
    "translates", "rewrites", "admires", "gently drains",
)  # fmt: skip
_OBJECTS = (
    "the second prompt", "a stream of words", "twelve open windows", "its own résumé", "the mesh → the pool",
    "a budget of 40 €", "the morning queue", "an unfinished sentence", "こんにちは", "every header", "a cup of tea 🍵",
    "the longest path",
)  # fmt: skip
_ENDINGS = (
    "", "", "", " before lunch", " without a word", ", as it should", " and smiles 🙂", " at 99 % of its strength",
    " once more — slowly", ", then rests 👍🏽",
)  # fmt: skip
_SHORTEST_TOKENS = 24
_LONGEST_TOKENS = 160
_SENTENCES_PER_PARAGRAPH = 4
_FILLER = " so"
"""One token after any text, in one character per byte."""


class Tokenizer(Protocol):
    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, tokens: list[int], /) -> str | None: ...


@dataclass(frozen=True)
class Answer:
    token_ids: list[int]
    finish_reason: str
    """`stop` when the text ended by itself, `length` when the limit cut it."""


def compose(tokenizer: Tokenizer, prompt: str, seed: int | None, limit: int, length: int | None) -> Answer:
    """At most `limit` tokens; exactly `length` where given and within the limit."""
    rng = generator(prompt, seed)
    wanted = rng.randint(_SHORTEST_TOKENS, _LONGEST_TOKENS) if length is None else length
    token_ids: list[int] = []
    sentences = _sentences(rng)
    while len(token_ids) < min(wanted, limit + 1):
        # A sentence ends where the tokenizer splits words anyway, so the parts encode as the whole does.
        token_ids += tokenizer.encode(next(sentences))
    if length is not None:
        token_ids = _cut(tokenizer, token_ids, min(length, limit + 1))
    return _finish(tokenizer, token_ids, limit)


def repeat(tokenizer: Tokenizer, text: str, limit: int) -> Answer:
    return _finish(tokenizer, tokenizer.encode(text), limit)


def generator(prompt: str, seed: int | None) -> random.Random:
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode(errors="surrogatepass")).digest()
    return random.Random(digest)  # noqa: S311 - repeatable is the point


def _sentences(rng: random.Random) -> Iterator[str]:
    for number in itertools.count():
        place = number % _SENTENCES_PER_PARAGRAPH
        before = " " if place else ""
        after = "" if place < _SENTENCES_PER_PARAGRAPH - 1 else "\n\n"
        words = f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}{rng.choice(_ENDINGS)}"
        yield f"{before}{words}.{after}"


def _finish(tokenizer: Tokenizer, token_ids: list[int], limit: int) -> Answer:
    if len(token_ids) <= limit:
        return Answer(token_ids, "stop")
    return Answer(_cut(tokenizer, token_ids, limit), "length")


def _cut(tokenizer: Tokenizer, token_ids: list[int], length: int) -> list[int]:
    """The first `length` tokens, with filler where the cut would split a character: the text of an
    answer then always has as many tokens as were reported."""
    kept = token_ids[:length]
    while tokenizer.decode(kept) is None:
        kept.pop()
    return kept + tokenizer.encode(_FILLER) * (length - len(kept))
