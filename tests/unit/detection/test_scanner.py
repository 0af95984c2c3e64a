"""What the scanner finds, why, and that nothing it is given makes it slow or wrong."""

import functools
import json
import pathlib
import threading
import time

import pytest

from extproc.detection.patterns import REGIONS
from extproc.detection.scanner import NOT_PERSONAL, PatternScanner, Selection
from extproc.detection.spans import Evidence
from tests.benchmarks import pii_quality
from tests.helpers.databases import kept

SENTENCES = pathlib.Path(__file__).parents[2] / "data" / "pii_sentences.jsonl"


@functools.cache
def scanner(*entities: str, threshold: float = 0.4) -> PatternScanner:
    return PatternScanner.compile(Selection(frozenset(entities), threshold=threshold), kept())


def found(text: str) -> list[tuple[str, str]]:
    return [(span.entity, text[span.start : span.end]) for span in scanner().scan(text)]


def test_a_hit_explains_itself() -> None:
    (span,) = scanner().scan("my card is 4111 1111 1111 1111")
    assert span.evidence == Evidence("pattern", "general/card_4444", "issuer_luhn", "card")
    assert span.confidence == 1.0


def test_a_failed_check_is_no_hit() -> None:
    assert found("my card is 4111 1111 1111 1112") == []


def test_a_word_before_or_after_tells_what_a_number_is() -> None:
    assert found("passport no. 512345678 please") == [("US_PASSPORT", "512345678")]
    assert found("078051127 is my ssn") == [("US_SSN", "078051127")]
    assert found("Order 512345678 please") == []


def test_a_part_of_a_longer_number_is_nothing() -> None:
    assert found("ssn 3.123456780 and ssn 550e8400-e29b-41d4-a716-446655440000") == []


def test_positions_count_code_points() -> None:
    text = "🔑é 여권 \ud800 jane@example.com ok"
    assert found(text) == [("EMAIL_ADDRESS", "jane@example.com")]


def test_regions_and_entities_can_be_chosen() -> None:
    german = PatternScanner.compile(Selection(regions=frozenset({"de"})), kept())
    text = "USt-IdNr. DE136695976, jane@example.com"
    assert [span.entity for span in german.scan(text)] == ["DE_VAT_ID"]
    assert [span.entity for span in scanner("EMAIL_ADDRESS").scan(text)] == ["EMAIL_ADDRESS"]
    with pytest.raises(ValueError, match="no pattern for NOT_THERE"):
        PatternScanner.compile(Selection(frozenset({"NOT_THERE"})))


def test_dates_and_urls_only_when_asked_for() -> None:
    text = "On 12 March 2024 see https://example.com/a"
    assert found(text) == []
    assert [span.entity for span in scanner(*NOT_PERSONAL).scan(text)] == ["DATE_TIME", "URL"]


def test_every_pattern_is_named_once_in_its_region() -> None:
    for patterns in REGIONS.values():
        assert len({pattern.name for pattern in patterns}) == len(patterns)


def test_our_own_sentences_are_read_as_labelled() -> None:
    """The measured quality must not fall unseen; the figures are in docs/pii.md."""
    counts = pii_quality.tally(
        ((row, pii_quality.found_places(row.text, frozenset(), 0.4)) for row in pii_quality.own_sentences()), False
    )
    judged = [count.f1 for count in counts.values() if count.right or count.missed]
    assert len(SENTENCES.read_text().splitlines()) >= 400
    assert sum(judged) / len(judged) >= 0.98


def test_negatives_of_our_own_are_left_alone() -> None:
    for line in SENTENCES.read_text().splitlines():
        row = json.loads(line)
        if not row["spans"]:
            assert found(row["text"]) == []


BAIT = {
    "digits": "1" * 1_000_000,
    "groups of digits": "12 34 56 " * 100_000,
    "at signs": "a@" * 500_000,
    "local parts": "a." * 500_000 + "@",
    "labels": "a@" + "b." * 500_000,
    "colons": "1:" * 500_000,
    "begun keys": "-----BEGIN RSA PRIVATE KEY-----" * 20_000,
    "begun tokens": "eyJhbGciOi." * 100_000,
    "schemes": "http://" * 100_000,
    "plates": "AB 12 " * 200_000,
    "words of context": "card ssn iban " * 80_000,
    "brackets": "+(1)" * 300_000,
    "zero width": "\u200b" * 3_400_000,
    "surrogates": "\ud800" * 300_000,
}


@pytest.mark.parametrize("bait", BAIT)
def test_bait_costs_no_more_than_its_length(bait: str) -> None:
    """Half of it must take about half the time: nothing here is quadratic."""
    text = BAIT[bait]
    small, whole = _cpu_s(text[: len(text) // 4]), _cpu_s(text)
    assert whole < 12 * small + 0.5


def _cpu_s(text: str) -> float:
    begin = time.thread_time()
    scanner().scan(text)
    return time.thread_time() - begin


def test_a_card_number_over_five_pieces() -> None:
    stream = scanner().open()
    segments = [
        s for piece in ("pay 41", "11 11", "11 1111", " 11", "11 now") for s in stream.feed(piece)
    ] + stream.close()
    assert "".join(segment.text for segment in segments) == "pay 4111 1111 1111 1111 now"
    assert [s.text[p.start : p.end] for s in segments for p in s.spans] == ["4111 1111 1111 1111"]


def test_a_hundred_thousand_tiny_pieces() -> None:
    text = "The quick brown fox, jane@example.com. " * 2600
    stream, out, spans = scanner().open(), 0, 0
    for character in text:
        for segment in stream.feed(character):
            out, spans = out + len(segment.text), spans + len(segment.spans)
    for segment in stream.close():
        out, spans = out + len(segment.text), spans + len(segment.spans)
    assert (out, spans) == (len(text), 2600)


def test_prose_is_released_a_word_behind() -> None:
    stream = scanner().open()
    out = [("".join(s.text for s in stream.feed(piece))) for piece in ("Everybody", " knows", " that", " prose")]
    assert out == ["", "Everybody ", "knows ", "that "]


def test_threads_share_a_scanner() -> None:
    text = "jane@example.com " * 200
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(len(scanner().scan(text)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200] * 8
