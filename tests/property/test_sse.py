"""However a stream is cut into chunks, its events are the same."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.dialects.sse import EventTooLarge, SseDecoder, SseEvent, encode_sse

pieces = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"event: e",
        b": c",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"x",
        "é\u2028🌍".encode(),
        b"\xef\xbb\xbf",
    ]
)
streams = st.lists(pieces | st.binary(max_size=4), max_size=40).map(b"".join)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def decode(chunks: list[bytes], limit_bytes: int = 1 << 20) -> tuple[list[SseEvent], bool]:
    decoder = SseDecoder(limit_bytes)
    events: list[SseEvent] = []
    try:
        for chunk in chunks:
            events += decoder.feed(chunk)
    except EventTooLarge as error:
        return events + error.before, True
    return events, False


@settings(deadline=None)
@given(streams, st.lists(st.integers(0, 1000), max_size=10))
def test_any_chunking_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    whole = decode([stream])
    assert decode(split(stream, cuts)) == whole
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == whole


@settings(deadline=None)
@given(streams, st.lists(st.integers(0, 1000), max_size=10))
@example(b"data: 123456\n\n", [13])  # as large as may be, cut between its two line ends
def test_any_chunking_finds_the_same_oversized_event(stream: bytes, cuts: list[int]) -> None:
    events, _ = decode([stream], 12)
    chunked, _ = decode(split(stream, cuts), 12)
    # A chunk boundary may show an oversized event before its end arrives, never another event before it.
    assert chunked == events


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50).map(lambda data: data.replace(b"\r", b"")), max_size=5))
def test_encoded_events_come_back(contents: list[bytes]) -> None:
    events, _ = decode([b"".join(encode_sse(content) for content in contents)])
    assert [event.data for event in events] == contents
