"""Pairs of questions from tests/data, and the verifier's files for gateways under test."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass

from extproc.inference.verifier import files

_DATA = pathlib.Path(__file__).parents[1] / "data"
SEEN = _DATA / "near_pairs.txt"
UNSEEN = _DATA / "unseen_pairs.txt"
FRESH = _DATA / "fresh_pairs.txt"
PARAPHRASE = "paraphrase"


@dataclass(frozen=True)
class NearPair:
    """`group` counts from 0; `kind` is `paraphrase` or what differs."""

    group: int
    one: str
    other: str
    kind: str

    @property
    def same(self) -> bool:
        return self.kind == PARAPHRASE


def pairs(file: pathlib.Path = SEEN) -> list[NearPair]:
    found: list[NearPair] = []
    base, group = "", -1
    for line in file.read_text().splitlines():
        if line.startswith("= "):
            found.append(NearPair(group, base, line[2:], PARAPHRASE))
        elif line.startswith("! "):
            _, kind, text = line.split(" ", 2)
            found.append(NearPair(group, base, text, kind))
        elif line and not line.startswith("#"):
            base, group = line, group + 1
    return found


@functools.cache
def verifier_folder() -> pathlib.Path:
    """Built the first time."""
    files.build(files.default_folder())
    return files.default_folder()
