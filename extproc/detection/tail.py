"""How much of a text that goes on must be held back, because a pattern may begin in it and end in what comes.

Bytes of UTF-8 throughout. The answer may hold back more than needed, never less: `tests/property/test_detection.py`
asserts it for every pattern of every table.
"""

from __future__ import annotations

import re

from extproc.detection.patterns.pattern import LONGEST_PHRASE_BYTES, LONGEST_TOKEN_BYTES

# No match but an assignment's and a private key's goes over these; a phrase may go over one single space.
_TOKEN = re.compile(rb"[^\s\"'<>`]*\Z")
_MONTH = (
    rb"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|ene|abr|ago|dic|f\xc3\xa9|avr|mai|jui|ao\xc3|d\xc3\xa9|m\xc3\xa4|okt|"
    rb"dez|gen|mag|giu|lug|set|ott|sty|lut|kwi|maj|cze|lip|sie|wrz|pa\xc5|lis|gru|oca|\xc5\x9f|nis|haz|tem|a\xc4|eyl|eki|"
    rb"kas|ara"
)
# What can stand before a space inside a phrase, and what can follow it there; the last word may still be growing.
_PAIRS = (
    (
        rb"\S*[0-9(+][^\s]*",
        rb"[0-9(+/-]|[A-Z]|[A-Za-z\x80-\xff]{0,4}(?:\Z|[^A-Za-z\x80-\xff])|(?i:"
        + _MONTH
        + rb")|(?i:ext|x[0-9])|[\x80-\xff]",
    ),
    (rb"[A-Z\x80-\xff]{1,6}", rb"[0-9A-Z(\x80-\xff]|\Z"),
    (rb"[A-Za-z\x80-\xff]{1,3}[.,]?", rb"[0-9(]|\Z"),
    (rb"(?i:de|of|di|del)", rb"(?i:" + _MONTH + rb")|[A-Za-z\x80-\xff]{0,2}\Z"),
    (rb"(?i:" + _MONTH + rb")[A-Za-z\x80-\xff]{0,10}[.,]{0,2}", rb"[0-9]|(?i:d)|\Z"),
    (rb"[/-]", rb"[0-9]|\Z"),
    (rb"(?i:bearer|basic)", rb""),
    (rb"(?i:mot)", rb"(?i:d)|\Z"),
    (rb"(?i:de)", rb"(?i:p)|\Z"),
)
_JOINED = re.compile(rb"|".join(rb"(?:\A|\b|(?<=[\s\W]))(?:%s) (?:%s)" % pair for pair in _PAIRS))

_SECRET_NAMES = (
    b"password", b"passwd", b"passphrase", b"passcode", b"pwd", b"secret", b"key", b"token", b"passwort", b"kennwort",
    b"passe", "contraseña".encode(), "hasło".encode(),
)  # fmt: skip
_SAID = tuple(name + verb for name in _SECRET_NAMES for verb in (b" is", b" ist", b" es", b" est"))
_BETWEEN_NAME_AND_VALUE = b" \"'\\:=>"
_LONGEST_NAME_BYTES = 32
_KEY_BEGINS, _KEY_ENDS = b"-----BEGIN ", re.compile(rb"-----END [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----")


def held_from(data: bytes, released: int) -> int:
    """The first position, from `released` on, at which a match could begin that also takes what follows `data`."""
    size = len(data)
    token = _last_token(data)
    start = _phrase(data, token) if size - token < LONGEST_PHRASE_BYTES else token
    start = min(start, _assignment(data, token), _private_key(data, released))
    return max(released, start, size - LONGEST_TOKEN_BYTES)


def _last_token(data: bytes) -> int:
    window = max(0, len(data) - LONGEST_TOKEN_BYTES)
    cut = max(
        data.rfind(separator, window)
        for separator in (b" ", b"\n", b'"', b"'", b"<", b">", b"`", b"\t", b"\r", b"\x0b", b"\x0c")
    )
    return cut + 1 if cut >= 0 else window


def _phrase(data: bytes, token: int) -> int:
    """Where a phrase that ends with the text can have begun: word by word backwards, as long as two words may join."""
    bound = max(0, len(data) - LONGEST_PHRASE_BYTES)
    start, following = token, data[token:]
    while start > bound and data[start - 1 : start] == b" ":
        before = start - 1
        word = _TOKEN.search(data, max(0, before - LONGEST_PHRASE_BYTES), before)
        if word is None or not word.group() or not _joins(word.group(), following):
            break
        start, following = word.start(), word.group()
    return start


def _joins(word: bytes, following: bytes) -> bool:
    return _JOINED.search(word + b" " + following) is not None


def _assignment(data: bytes, token: int) -> int:
    """Where the name of a secret begins whose value the last token is, or may become."""
    for end in (len(data), token):
        name_end = len(data[max(0, end - 64) : end].rstrip(_BETWEEN_NAME_AND_VALUE)) + max(0, end - 64)
        name = data[max(0, name_end - _LONGEST_NAME_BYTES) : name_end].lower()
        if name.endswith(_SECRET_NAMES + _SAID):
            return max(0, name_end - _LONGEST_NAME_BYTES)
    return len(data)


def _private_key(data: bytes, released: int) -> int:
    """Where a private key begins that has not ended yet."""
    begin = data.rfind(_KEY_BEGINS, released)
    if begin < 0:
        return len(data)
    end = _KEY_ENDS.search(data, begin)
    return begin if end is None or end.end() == len(data) else len(data)
