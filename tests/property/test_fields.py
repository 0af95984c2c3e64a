"""Header blocks split field by field say what they say as a whole, and rubbish is an error, not a hang."""

import contextlib

from hpack import Decoder, Encoder, HPACKError
from hypothesis import given
from hypothesis import strategies as st

from extproc.edge.fields import split

NAMES = st.sampled_from([b":path", b":method", b"traceparent", b"te", b"content-type"]) | st.binary(
    min_size=1, max_size=9
)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=200)), max_size=12)


def without_a_table() -> Decoder:
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    return decoder


@given(HEADERS, st.booleans())
def test_the_parts_say_what_the_whole_says(headers: list[tuple[bytes, bytes]], huffman: bool) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    block = encoder.encode(headers, huffman=huffman)
    parts = list(split(block))
    assert b"".join(parts) == block
    decoder = without_a_table()
    apart = [header for part in parts for header in decoder.decode(part, raw=True)]
    assert apart == list(without_a_table().decode(block, raw=True)) == headers


@given(st.binary(max_size=300))
def test_any_bytes_are_split_or_refused(block: bytes) -> None:
    with contextlib.suppress(HPACKError):
        assert b"".join(split(block)) == block
