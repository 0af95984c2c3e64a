"""Text as a reader would take it: folded to one spelling, and what was disguised brought to light.

Owns what lookalikes, invisible characters and encodings mean; must not know what anyone looks for in the result.
`fold` is for matching only: it loses case, accents and the alphabet of letters that look Latin. Everything here takes
time and memory in proportion to the text, and works in pieces, so that a thread that does it lets others run.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from extproc.detection.lookalikes import CAPTIONS, CIRCLED, LOOKALIKES

PIECE_CHARS = 65536
DECODED_LIMIT = 1 << 20
"""So much is decoded of one text, in bytes; a text has no business hiding more."""

_SWELLING = 4
_ASCII_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Disguise(enum.StrEnum):
    """How a text was hidden from whoever reads it literally."""

    SPACED = "spaced"
    LEET = "leet"
    ROT13 = "rot13"
    REVERSED = "reversed"
    MORSE = "morse"
    BASE64 = "base64"
    BASE32 = "base32"
    HEX = "hex"
    PERCENT = "percent"
    ENTITIES = "entities"
    INVISIBLE = "invisible"


class View(Struct, frozen=True):
    """What a disguised text says, folded."""

    disguise: Disguise
    text: str


IN_PLACE: Mapping[Disguise, str] = {
    Disguise.SPACED: r"(?:[^a-z0-9][a-z0-9$@!|]){6}",
    Disguise.LEET: r"[a-z][0-9@$!|]+[a-z]|\b[0-9@$!|]{1,3}[a-z]+[0-9@$!|]|\b[0-9@$!|][a-z]{3}",
    Disguise.ROT13: r"vtaber|vafgehpg|cebzcg|cerivbhf|qvfertneq|flfgrz zrffntr",
    Disguise.REVERSED: r"erongi|noitcurtsni|tpmorp|suoiverp|dragersid",
    Disguise.MORSE: r"(?:[.-]{1,5}[ /|]{1,3}){10}",
    Disguise.BASE32: r"[a-z2-7]{24}",
    Disguise.HEX: r"(?:[0-9a-f]{2}[ :,]?){10}|(?:\\x|0x)[0-9a-f]{2}",
    Disguise.PERCENT: r"%[0-9a-f]{2}",
    Disguise.ENTITIES: r"&#x?[0-9a-f]{2,6};|\\u[0-9a-f]{4}",
}
"""Where to look for what is undone by `undo`: regular expressions over folded text, for a matcher without
backtracking."""

BASE64_PROBE = r"[a-z0-9+/_-]{16}"
"""The same for what `decode_base64` undoes, which needs the text as it came."""


def fold(text: str) -> str:
    """One spelling for all that looks alike: compatibility forms (NFKC's, taken apart so that accents can go),
    invisible characters removed, lookalikes of Latin letters made Latin, lower case."""
    if text.isascii():
        return text.lower()
    pieces = (text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))
    return "".join(map(_fold_piece, pieces))


def undo(disguise: Disguise, folded: str) -> Iterator[View]:
    """What a piece of folded text says without this disguise (one of IN_PLACE); more than one reading may be given."""
    for reading in _UNDO[disguise](folded):
        yield View(disguise, reading)


def decode_base64(text: str) -> View | None:
    """Everything in the original text that is base64 of readable text, line after line."""
    found: list[str] = []
    budget = DECODED_LIMIT
    for run in _BASE64_RUN.finditer(text):
        budget -= len(run[0])
        if budget < 0:
            break
        found += _readable(_base64_bytes(_LINE_ENDS.sub("", run[0]).translate(_URL_SAFE)))
    return View(Disguise.BASE64, fold("\n".join(found))) if found else None


def invisible_message(text: str) -> View | None:
    """What is written in characters that nobody sees: tags and variation selectors, each of which stands for a byte."""
    if text.isascii():
        return None
    messages = [_from_invisible(run) for run in _INVISIBLE_RUN.findall(text)]
    readable = [message for message in messages if len(message) > _SWELLING]
    return View(Disguise.INVISIBLE, fold("\n".join(readable))) if readable else None


# Folding.


_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _fold_piece(piece: str) -> str:
    if piece.isascii():
        return piece.lower()
    apart = unicodedata.normalize("NFKD", piece)
    if len(apart) > _SWELLING * len(piece):  # ligatures of whole phrases, by the thousand: nobody reads that
        apart = piece
    table = _table()  # ASCII stays what it is, as in a text that has nothing else
    return _NOT_ASCII.sub(lambda run: run[0].translate(table), apart).lower()


@functools.cache
def _table() -> dict[int, str | None]:
    """What `fold` does to one character."""
    table: dict[int, str | None] = dict.fromkeys(_removed())
    table |= {ord(char): latin for latin, chars in LOOKALIKES.items() for char in chars}
    table |= {ord(char): latin for char, latin in CAPTIONS.items()}
    for first in CIRCLED:
        table |= {first + place: letter for place, letter in enumerate(_ASCII_LETTERS)}
    return table


def _removed() -> Iterator[int]:
    marks = ((0x0300, 0x0370), (0x1AB0, 0x1B00), (0x1DC0, 0x1E00), (0x20D0, 0x2100), (0xFE20, 0xFE30))
    unseen = (
        *((0x00AD, 0x00AE), (0x034F, 0x0350), (0x061C, 0x061D), (0x115F, 0x1161), (0x17B4, 0x17B6), (0x180B, 0x1810)),
        *((0x200B, 0x2010), (0x202A, 0x202F), (0x2060, 0x2070), (0x3164, 0x3165), (0xFE00, 0xFE10), (0xFEFF, 0xFF00)),
        *((0xFFA0, 0xFFA1), (0xFFF9, 0xFFFC), (0x1D173, 0x1D17B), (0xE0000, 0xE1000)),
    )
    for start, end in (*marks, *unseen):
        yield from range(start, end)


# In place.

_SPACED_RUN = re.compile(r"(?<![a-z0-9])[a-z0-9$@!|](?:[^a-z0-9\n]{1,3}[a-z0-9$@!|](?![a-z0-9])){4,}")
_GAP_OF_WORDS = re.compile(r"[^a-z0-9$@!|]{2,}|[/|_]")
_NO_LETTER = re.compile(r"[^a-z0-9$@!|]+")
_LEET = (str.maketrans("013457@$!|", "oieastasil"), str.maketrans("013457@$!|", "oleastasll"))
_LEET_WORD = re.compile(r"[a-z0-9@$!|]+")
_ROT13 = str.maketrans(_ASCII_LETTERS, _ASCII_LETTERS[13:] + _ASCII_LETTERS[:13])
_MORSE_RUN = re.compile(r"[.-]{1,5}(?:[ /|]{1,3}[.-]{1,5}){9,}")
_MORSE_CODE = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
_MORSE = dict(zip(_MORSE_CODE.split(" "), _ASCII_LETTERS + "0123456789", strict=True))


def _join_spaced(folded: str) -> Iterator[str]:
    """`i g n o r e`, `i-g-n-o-r-e`; a wider gap than the usual one is one between words."""

    def join(run: re.Match[str]) -> str:
        words = _GAP_OF_WORDS.split(run[0])
        letters = [_NO_LETTER.sub("", word) for word in words]
        return " ".join(letters) if max(map(len, letters)) > 1 else "".join(letters)

    joined = _SPACED_RUN.sub(join, folded)
    if joined != folded:
        yield joined
        yield from _read_leet(joined)


def _read_leet(folded: str) -> Iterator[str]:
    """Digits and signs for letters; `1` is an i or an l."""
    readings = {_LEET_WORD.sub(lambda word: _unleet(word[0], table), folded) for table in _LEET}  # noqa: B023
    yield from sorted(readings - {folded})


def _unleet(word: str, table: dict[int, int]) -> str:
    return word if word.isalpha() else word.translate(table)


def _read_morse(folded: str) -> Iterator[str]:
    for run in _MORSE_RUN.findall(folded):
        words = re.split(r" ?[/|] ?| {2,}", run)
        yield " ".join("".join(_MORSE.get(letter, "") for letter in word.split(" ")) for word in words)


# Encodings. A run that does not decode to text is what it looks like: a key, a hash, a picture.

_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*")
_BASE32_RUN = re.compile(r"[a-z2-7]{24,}")
_HEX_RUN = re.compile(r"(?:(?:\\x|0x)?[0-9a-f]{2}[ :,]?){8,}")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")
_HEX_SIGNS = re.compile(r"\\x|0x|[ :,]")
_LINE_ENDS = re.compile(r"\r?\n")
_URL_SAFE = str.maketrans("-_", "+/")
_INVISIBLE_RUN = re.compile("(?<!\U0001f3f4)(?:[\U000e0020-\U000e007e]{4,}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,})")
_SAMPLE_BYTES = 256
_READABLE_SHARE = 0.8


def _base64_bytes(run: str) -> bytes:
    whole = run[:-1] if len(run) % 4 == 1 else run + "=" * (-len(run) % 4)
    try:
        return base64.b64decode(whole)
    except binascii.Error:
        return b""


def _base32(folded: str) -> Iterator[str]:
    for run in _BASE32_RUN.findall(folded):
        yield from _readable(base64.b32decode(run[: len(run) - len(run) % 8].upper()))


def _hex(folded: str) -> Iterator[str]:
    for run in _HEX_RUN.findall(folded):
        digits = _HEX_SIGNS.sub("", run)
        yield from _readable(bytes.fromhex(digits[: len(digits) - len(digits) % 2]))


def _percent(folded: str) -> Iterator[str]:
    yield fold(unquote_to_bytes(folded.replace("+", " ")).decode("utf-8", "replace"))


def _entities(folded: str) -> Iterator[str]:
    yield fold(html.unescape(_ESCAPED.sub(lambda code: chr(int(code[1], 16)), folded)))


def _readable(data: bytes) -> Iterator[str]:
    sample = data[:_SAMPLE_BYTES].decode("utf-8", "replace")
    known = sum(char.isalnum() or char in " \n\r\t.,:;!?'\"()-" for char in sample)
    if len(sample) > _SWELLING and known >= _READABLE_SHARE * len(sample):
        yield fold(data.decode("utf-8", "replace"))


def _from_invisible(run: str) -> str:
    codes = [ord(char) for char in run]
    if 0xE0020 <= codes[0] < 0xE0080:
        return "".join(chr(code - 0xE0000) for code in codes)
    data = bytes(code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16 for code in codes)
    return next(_readable(data), "")


_UNDO: Mapping[Disguise, Callable[[str], Iterator[str]]] = {
    Disguise.SPACED: _join_spaced,
    Disguise.LEET: _read_leet,
    Disguise.ROT13: lambda folded: iter((folded.translate(_ROT13),)),
    Disguise.REVERSED: lambda folded: iter((folded[::-1],)),
    Disguise.MORSE: _read_morse,
    Disguise.BASE32: _base32,
    Disguise.HEX: _hex,
    Disguise.PERCENT: _percent,
    Disguise.ENTITIES: _entities,
}
