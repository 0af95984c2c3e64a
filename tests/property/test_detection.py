"""Streams find what a scan of the whole text finds, wherever the text is cut; nothing is released too early."""

import functools
import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.detection.patterns import REGIONS
from extproc.detection.patterns.pattern import LONGEST_TOKEN_BYTES, Pattern
from extproc.detection.scanner import PatternScanner, Selection
from extproc.detection.spans import Span
from extproc.detection.stream import LONGEST_GROUP_BYTES
from extproc.detection.tail import held_from
from tests.helpers.databases import kept

PATTERNS = [pattern for patterns in REGIONS.values() for pattern in patterns]
HELD_AT_MOST = LONGEST_TOKEN_BYTES + LONGEST_GROUP_BYTES + 256

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx4fDm9\nuT0ZkQ==\n-----END RSA PRIVATE KEY-----"
VALUES = [
    "4111 1111 1111 1111", "4111111111111111", "DE89 3704 0044 0532 0130 00", "VG96 VPVG 0000 0123 4567 8901",
    "jane.doe@example.co.uk", "jörg@münchen.example", "+1 (415) 555-0132 ext. 12", "+49 171 1234567", "06 12 34 56 78",
    "192.168.10.5", "2001:db8::8a2e:370:7334", "https://user:pa55w0rd@host.example/x?y=1", "123-45-6780", "078051120",
    "AB 12 34 56 C", "MORGA 657054 SM9IJ", "SW1A 1AA", "KA EF 12H", "12 de marzo de 2024", "March 3rd, 1987",
    "1987-03-12",
    "1990年 3月 12日", "131052-308T", "850101-1234567", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123_-", PEM,
    "password = hunter2!x", '"api_key": "Zx81kQ02mPq"', "the password is s3cret!!", "Bearer abcDEF1234567890xyz",
    "AKIAIOSFODNN7EXAMPLE", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "00:1A:2B:3C:4D:5E", "2 85 05 78 006 084 91",
]  # fmt: skip
WORDS = [
    "passport", "my card is", "SSN:", "number", "of", "de", "is", "the", "quick", "born", "Telefon", "여권", "번호는",
    "โทร", "電話", "паспорт", "العربية", "Straße", "é", "\u200b", "🔑", "A", "12", "3.14", "0", "x", "May", "MH",
]  # fmt: skip
SEPARATORS = [" ", " ", " ", "", ", ", ". ", "\n", "-", ":", '"', "  ", "\u00a0", "/", "\ud800"]
PIECE = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(WORDS),
    st.text(max_size=6),
    st.from_regex(r"[0-9A-Z .:/()+-]{1,30}", fullmatch=True),
)
TEXT = st.lists(st.tuples(PIECE, st.sampled_from(SEPARATORS)), max_size=12).map(
    lambda parts: "".join(part + separator for part, separator in parts)
)


@functools.cache
def scanner(threshold: float) -> PatternScanner:
    entities = frozenset(pattern.entity for pattern in PATTERNS)
    return PatternScanner.compile(Selection(entities=entities, threshold=threshold), kept())


def streamed(text: str, cuts: list[int], threshold: float) -> tuple[str, list[Span]]:
    """The text that came out of a stream, and its spans in the text's own positions."""
    stream = scanner(threshold).open()
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    segments = [s for a, b in pairwise(bounds) for s in stream.feed(text[a:b])] + stream.close()
    out, spans = "", []
    for segment in segments:
        spans += [Span(s.start + len(out), s.end + len(out), s.entity, s.confidence, s.evidence) for s in segment.spans]
        out += segment.text
    return out, spans


@pytest.mark.parametrize("threshold", [0.4, 0.0])
@settings(max_examples=60, deadline=None)
@given(text=TEXT, cuts=st.lists(st.integers(0, 400), max_size=12))
@example(text="call 4111 1111 1111 1111 now", cuts=[7, 11, 15, 19, 23])
@example(text="078051120 is my ssn", cuts=[9, 12, 16])
def test_a_stream_finds_what_a_scan_finds(threshold: float, text: str, cuts: list[int]) -> None:
    assert streamed(text, cuts, threshold) == (text, list(scanner(threshold).scan(text)))


@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_one_character_at_a_time(text: str) -> None:
    assert streamed(text, list(range(len(text))), 0.4) == (text, list(scanner(0.4).scan(text)))


def matching(pattern: Pattern) -> st.SearchStrategy[tuple[Pattern, bytes]]:
    """Text that a pattern's widest expression matches."""
    expression = re.compile((pattern.whole or pattern.expression).encode())
    return st.tuples(st.just(pattern), st.from_regex(expression, fullmatch=True))


@settings(max_examples=400, deadline=None)
@given(found=st.sampled_from(PATTERNS).flatmap(matching), before=st.sampled_from([b"", b" ", b"so it was (", b'"']))
def test_no_beginning_of_a_match_is_released(found: tuple[Pattern, bytes], before: bytes) -> None:
    pattern, match = found
    if len(match) > LONGEST_TOKEN_BYTES:
        return
    for length in range(1, len(match) + 1):
        held = held_from(before + match[:length], 0)
        assert held <= len(before), (pattern.name, match[:length], match[held - len(before) :])


@settings(max_examples=30, deadline=None)
@given(unit=TEXT.filter(bool), size=st.integers(1, 60))
def test_never_more_is_held_than_promised(unit: str, size: int) -> None:
    text = (unit * (20_000 // len(unit) + 1))[:20_000]
    stream, fed, released = scanner(0.4).open(), 0, 0
    for at in range(0, len(text), 50 * size):
        piece = text[at : at + 50 * size]
        fed += len(piece.encode("utf-8", "surrogatepass"))
        released += sum(len(s.text.encode("utf-8", "surrogatepass")) for s in stream.feed(piece))
        assert fed - released <= HELD_AT_MOST
