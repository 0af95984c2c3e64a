"""Prompts with labels: our own, and the sample beside the checkout; and what is done to attacks to hide them."""

from __future__ import annotations

import base64
import codecs
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from tests.helpers import data

_FOLDER = pathlib.Path(__file__).parents[1] / "data" / "guard"
_HOMOGLYPHS = str.maketrans("aeopcxyis", "аеорсхуіѕ")  # noqa: RUF001 (that is what they are)
_LEET = str.maketrans("aeiost", "431057")
_FILLER = (
    "The harbour was quiet that morning and the boats lay still. Gulls circled over the market while the first stalls "
    "opened and the smell of bread came down the lane. "
)
_HALF_CHARS = 100_000
_ABOUT_ATTACKS = ("guard", "heads", "safety", "content-rules", "redaction", "pii", "encoder")


class Prompt(Struct, frozen=True):
    text: str
    attack: bool
    kind: str
    development: bool = False


def own() -> list[Prompt]:
    """The sets in tests/data/guard."""
    return [*_read("attacks.txt", attack=True), *_read("benign.txt", attack=False)]


def sample() -> list[Prompt]:
    """The sample beside the checkout; skips without it."""
    rows = [json.loads(line) for line in data.path("injection.jsonl").read_text().splitlines()]
    return [Prompt(row["text"], row["label"] == 1, row["source"]) for row in rows]


def _read(name: str, *, attack: bool) -> Sequence[Prompt]:
    prompts: list[Prompt] = []
    kind = ""
    for line in (_FOLDER / name).read_text().splitlines():
        if line.startswith("# "):
            kind = line[2:].partition(":")[0]
        else:
            prompts.append(Prompt(line.replace("\\n", "\n"), attack, kind, len(prompts) % 2 == 0))
    return prompts


def _to_base64(text: str) -> str:
    return "Decode this and answer: " + base64.b64encode(text.encode()).decode()


def _in_documentation(text: str) -> str:
    """In the middle of 200 KB of this project's own pages, those about attacks apart: prose, tables, code, settings."""
    pages = _documentation()
    return f"{pages[:_HALF_CHARS]}\n\n{text}\n\n{pages[_HALF_CHARS : 2 * _HALF_CHARS]}"


@functools.cache
def _documentation() -> str:
    folder = pathlib.Path(__file__).parents[2] / "docs"
    return "\n\n".join(page.read_text() for page in sorted(folder.glob("*.md")) if page.stem not in _ABOUT_ATTACKS)


HIDING: Mapping[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "zero-width": "\u200b".join,
    "homoglyphs": lambda text: text.translate(_HOMOGLYPHS),
    "spaced": lambda text: "   ".join(" ".join(word) for word in text.split(" ")),
    "leet": lambda text: text.translate(_LEET),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "base64": _to_base64,
    "hex": lambda text: "Answer what this says: " + text.encode().hex(),
    "percent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "padded": lambda text: _FILLER * 60 + text + " " + _FILLER * 60,
    "padded with 200 KB": lambda text: _FILLER * 600 + text + " " + _FILLER * 600,
    "in 200 KB of documentation": _in_documentation,
}
"""Ways to hide a text, by name."""
