"""Header blocks of a peer that keeps no table (RFC 7541 with a table size of 0): each field stands for itself.

So a block can be split without being decoded, and a field that came before need not be decoded again: of a call's
header block only the trace context is new. Must not know: what a field means.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpack import HPACKError

_INDEXED, _KEPT, _SIZE_UPDATE, _UPDATE_MASK = 0x80, 0x40, 0x20, 0xE0
_INDEX_BITS, _KEPT_BITS, _UPDATE_BITS, _LITERAL_BITS, _LENGTH_BITS = 0x7F, 0x3F, 0x1F, 0x0F, 0x7F
_MORE, _SEVEN = 0x80, 0x7F
_LONGEST_SHIFT = 28


def split(block: bytes) -> Iterator[bytes]:
    """The representations in a block, one by one. Raises HPACKError where it breaks off."""
    at, end = 0, len(block)
    while at < end:
        begin, first = at, block[at]
        if first & _INDEXED:
            _, at = _integer(block, at, _INDEX_BITS)
        elif first & _UPDATE_MASK == _SIZE_UPDATE:
            _, at = _integer(block, at, _UPDATE_BITS)
        else:
            index, at = _integer(block, at, _KEPT_BITS if first & _KEPT else _LITERAL_BITS)
            if index == 0:
                at = _after_string(block, at)
            at = _after_string(block, at)
        yield block[begin:at]


def _after_string(block: bytes, at: int) -> int:
    length, at = _integer(block, at, _LENGTH_BITS)
    if at + length > len(block):
        raise HPACKError("a string is longer than its block")
    return at + length


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """RFC 7541, section 5.1: the number whose first bits are in the mask, and where it ends."""
    if at >= len(block):
        raise HPACKError("a block ends within a field")
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, _LONGEST_SHIFT + 1, 7):
        if at >= len(block):
            raise HPACKError("a block ends within a number")
        byte = block[at]
        at += 1
        value += (byte & _SEVEN) << shift
        if not byte & _MORE:
            return value, at
    raise HPACKError("a number has no end")
