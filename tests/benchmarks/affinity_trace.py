"""Recorded traces as requests: when each came, its sizes, and a prompt that begins as others do where the trace says.

Mooncake's does: a block of it is 512 tokens and stands for all before it, too; here it is 512 words of three letters,
which are 2048 bytes and 512 tokens, and the same words wherever the trace has the same block. In Azure's every prompt
is one of its own.
"""

import csv
import functools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

BLOCK_TOKENS = 512
BLOCK_BYTES = 2048
_TOKEN_BYTES = BLOCK_BYTES // BLOCK_TOKENS
_WORDS = "the and for you not are but all can had her was one our out day get has him his how man new now old see"


@dataclass(frozen=True)
class Arrival:
    """One request: when it comes, its size, and the blocks of its prompt, the last of which may not be full."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]

    @property
    def full_blocks(self) -> tuple[int, ...]:
        return self.blocks[: self.input_tokens // BLOCK_TOKENS]

    def prompt(self, most_tokens: int | None = None) -> str:
        """Its text, or the beginning of it."""
        tokens = self.input_tokens if most_tokens is None else min(self.input_tokens, most_tokens)
        needed = self.blocks[: -(-tokens // BLOCK_TOKENS)]
        return "".join(map(_text, needed))[: tokens * _TOKEN_BYTES]


@functools.lru_cache(maxsize=4096)
def _text(block: int) -> str:
    words = random.Random(block).choices(_WORDS.split(), k=BLOCK_TOKENS)
    return "".join(f" {word}" for word in words)


def load(path: Path) -> Iterator[Arrival]:
    """Mooncake's JSON lines, or Azure's CSV."""
    return _load_azure(path) if is_azure(path) else _load_mooncake(path)


def is_azure(path: Path) -> bool:
    return path.suffix == ".csv"


def _load_azure(path: Path) -> Iterator[Arrival]:
    with path.open() as lines:
        first: datetime | None = None
        block = 0
        for row in csv.DictReader(lines):
            came = datetime.fromisoformat(row["TIMESTAMP"][:26])  # the seventh decimal is more than it takes
            first = first or came
            tokens = int(row["ContextTokens"])
            blocks = tuple(range(block, block + tokens // BLOCK_TOKENS + 1))
            block += len(blocks)
            yield Arrival((came - first).total_seconds(), tokens, int(row["GeneratedTokens"]), blocks)


def _load_mooncake(path: Path) -> Iterator[Arrival]:
    with path.open() as lines:
        for row in map(json.loads, lines):
            blocks = tuple(row["hash_ids"])
            yield Arrival(row["timestamp"] / 1000, row["input_length"], row["output_length"], blocks)


def one_in(arrivals: list[Arrival], count: int) -> list[Arrival]:
    """Every `count`-th conversation (what begins with the same two blocks), with all its turns."""
    begun = {arrival.blocks[:2]: None for arrival in arrivals}
    chosen = set(list(begun)[::count])
    return [arrival for arrival in arrivals if arrival.blocks[:2] in chosen]


def sped_up(arrivals: list[Arrival], factor: float) -> list[Arrival]:
    return [
        Arrival(arrival.at_s / factor, arrival.input_tokens, arrival.output_tokens, arrival.blocks)
        for arrival in arrivals
    ]
