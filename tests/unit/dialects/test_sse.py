"""Framing of Server-Sent Events, case by case."""

from __future__ import annotations

import json
import time

import pytest

from extproc.dialects.sse import EventTooLarge, SseDecoder, SseEvent, encode_sse
from tests.helpers import data


def decode(*chunks: bytes) -> list[SseEvent]:
    decoder = SseDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_reference_cases_decode_as_openais_client_decodes_them() -> None:
    for case in json.loads(data.path("sse_cases.json").read_text()):
        events = decode(*(chunk.encode(case["chunk_encoding"]) for chunk in case["chunks"]))
        assert len(events) == len(case["events"]), case["name"]
        for event, expected in zip(events, case["events"], strict=True):
            assert event.event == expected["event"], case["name"]
            if "json" in expected:
                assert json.loads(event.data or b"") == expected["json"], case["name"]
            if "data" in expected:
                assert (event.data or b"").decode() == expected["data"], case["name"]


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_every_line_ending_ends_lines(newline: bytes) -> None:
    stream = newline.join([b"data: one", b"data: two", b"", b"data: three", b"", b""])
    assert [event.data for event in decode(stream)] == [b"one\ntwo", b"three"]
    assert [event.data for event in decode(*(stream[i : i + 1] for i in range(len(stream))))] == [
        b"one\ntwo",
        b"three",
    ]


def test_an_event_ended_by_cr_does_not_wait_for_the_next_byte() -> None:
    assert [event.data for event in decode(b"data: x\r\r")] == [b"x"]


def test_crlf_split_between_chunks_is_one_line_ending() -> None:
    assert [event.data for event in decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n")] == [b"a\nb"]


@pytest.mark.parametrize("split", range(4))
def test_byte_order_mark_is_skipped_wherever_it_is_split(split: int) -> None:
    stream = b"\xef\xbb\xbfdata: x\n\n"
    assert decode(stream[:split], stream[split:]) == [SseEvent(b"x", None, b"data: x\n\n")]


def test_only_a_whole_byte_order_mark_is_one() -> None:
    assert decode(b"\xef\xbb", b"data: x\n\n")[0].data is None


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"data:x", b"x"),
        (b"data: x", b"x"),
        (b"data:  x", b" x"),
        (b"data", b""),
        (b"data:", b""),
        (b": comment\ndata: x", b"x"),
        (b"id: 1\nretry: 5\ndata: x", b"x"),
        (b"datax: y\ndata: x", b"x"),
        (b"data: a:b", b"a:b"),
        ("data: \u2028".encode(), "\u2028".encode()),
        (b": comment", None),
        (b"event: ping", None),
    ],
)
def test_fields(block: bytes, expected: bytes | None) -> None:
    assert [event.data for event in decode(block + b"\n\n")] == [expected]


def test_raw_bytes_put_together_are_the_stream() -> None:
    stream = b': keep-alive\n\ndata: {"a":1}\n\nevent: x\ndata: 1\ndata: 2\n\ndata: [DONE]\n\n'
    assert b"".join(event.raw for event in decode(stream)) == stream


def test_superfluous_blank_lines_are_no_events() -> None:
    assert [event.raw for event in decode(b"\n\n\ndata: a\n\n\n\n", b"\n\ndata: b\n\n")] == [
        b"data: a\n\n",
        b"data: b\n\n",
    ]


def test_an_event_without_its_blank_line_is_dropped() -> None:
    assert decode(b"data: x\n") == []


def test_oversized_events_are_refused_and_earlier_ones_kept() -> None:
    decoder = SseDecoder(limit_bytes=16)
    assert [event.data for event in decoder.feed(b"data: ok\n\ndata: ")] == [b"ok"]
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x" * 17)
    with pytest.raises(EventTooLarge) as caught:
        SseDecoder(limit_bytes=16).feed(b"data: ok\n\ndata: " + b"x" * 17 + b"\n\n")
    assert [event.data for event in caught.value.before] == [b"ok"]


def test_many_tiny_chunks_of_one_large_event_take_linear_time() -> None:
    def seconds(size_bytes: int) -> float:
        decoder = SseDecoder()
        began_s = time.process_time()
        for _ in range(size_bytes // 8):
            decoder.feed(b"xxxxxxxx")
        return time.process_time() - began_s

    seconds(1 << 16)
    assert seconds(1 << 19) < 40 * max(seconds(1 << 16), 1e-4)


@pytest.mark.parametrize("content", [b"x", b"", b"two\nlines", b"three\r\nmore\rlines", b" led by a space"])
def test_what_is_encoded_decodes_to_the_same(content: bytes) -> None:
    (event,) = decode(encode_sse(content, "name"))
    assert event.event == "name"
    assert event.data == content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
