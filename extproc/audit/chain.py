"""What makes a line tamper-evident: a keyed hash over it and over the hash of the line before it. Pure functions.

A record is one line of JSON that ends in `"mac"`: HMAC-SHA256, with the audit secret, of every byte of the line before
`,"mac"`. Among those bytes is `"prev"`, the mac of the record before, so that no record can be changed, taken out, put
in or moved without the secret. The head is such a line too: it says which record is the last, so that records missing
at the end are noticed as well.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from extproc.audit.record import Entry

GENESIS = "0" * 64
"""What stands for the record before the first."""

_BEFORE, _AFTER = b',"mac":"', b'"}'
_MAC_CHARS = 64
_TAIL = len(_BEFORE) + _MAC_CHARS + len(_AFTER)


class Head(Struct, frozen=True):
    """How far a chain has come: its last record's number and mac, and where that record ends.

    `chain` is a random name; `opened_s` when `file` was begun (Unix seconds); `end` bytes of it are in use.
    """

    head: int
    chain: str
    last: str
    file: str
    end: int
    opened_s: float


class Link(Struct, frozen=True):
    """The part of a record that holds the chain together. `through` and `last`: what was retired up to here."""

    seq: int
    chain: str
    prev: str
    action: str = ""
    through: int = 0
    last: str = ""


class Torn(ValueError):
    """A line that is not what its writer wrote."""


def seal(fields: Mapping[str, Any], key: bytes) -> tuple[bytes, str]:
    """The line for these fields, without its newline, and its mac."""
    body = orjson.dumps(fields)[:-1]
    mac = hmac.new(key, body, hashlib.sha256).hexdigest()
    return body + _BEFORE + mac.encode() + _AFTER, mac


def unseal(line: bytes, key: bytes) -> tuple[bytes, str]:
    """The JSON that was sealed, and its mac. Raises Torn."""
    body, tail = line[:-_TAIL], line[-_TAIL:]
    mac = tail[len(_BEFORE) : -len(_AFTER)]
    expected = hmac.new(key, body, hashlib.sha256).hexdigest()
    if not (tail.startswith(_BEFORE) and tail.endswith(_AFTER) and hmac.compare_digest(mac, expected.encode())):
        raise Torn("its mac does not fit")
    return body + b"}", expected


def link_of(line: bytes, key: bytes) -> tuple[Link, str]:
    """A record's place in the chain, and its mac. Raises Torn."""
    body, mac = unseal(line, key)
    try:
        return msgspec.json.decode(body, type=Link), mac
    except msgspec.DecodeError as error:
        raise Torn("it is no record") from error


def head_line(head: Head, key: bytes) -> bytes:
    return seal(msgspec.structs.asdict(head), key)[0]


def read_head(line: bytes, key: bytes) -> Head:
    """Raises Torn."""
    try:
        return msgspec.json.decode(unseal(line.rstrip(b"\n"), key)[0], type=Head)
    except msgspec.DecodeError as error:
        raise Torn("it is no head") from error


def fields_of(entry: Entry) -> dict[str, Any]:
    """An entry as its record spells it; what is empty is left out."""
    told = {"time": round(entry.time_s, 6), "actor": entry.actor, "action": entry.action.value}
    more = ("team", "policy", "reason", "config_version", "request_id", "operation", "model", "subject")
    told |= {name: value for name in more if (value := getattr(entry, name))}
    return told | ({"entities": dict(entry.entities)} if entry.entities else {})
