"""What takes the place of a find: one function per action.

Must not know: which action is chosen for what, and where the text goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from extproc.detection.runs import Replace
from extproc.detection.spans import Span

_SHOWN = 4
_DIGEST_BYTES = 8


class Action(StrEnum):
    """What becomes of a find."""

    ALLOW = "allow"
    REDACT = "redact"
    MASK = "mask"
    HASH = "hash"
    PSEUDONYMISE = "pseudonymise"
    BLOCK = "block"


def redacted(entity: str) -> str:
    return f"<{entity}>"


def masked(text: str) -> str:
    """Letters and digits become `*`, save the last four; all of them where there are fewer than eight."""
    left = sum(letter.isalnum() for letter in text)
    shown = _SHOWN if left >= 2 * _SHOWN else 0
    letters: list[str] = []
    for letter in text:
        if letter.isalnum():
            letters.append("*" if left > shown else letter)
            left -= 1
        else:
            letters.append(letter)
    return "".join(letters)


def hashed(entity: str, text: str, tenant: str, secret: bytes) -> str:
    """The same for the same text of the same tenant, and of no use to who doesn't know the secret.

    `secret` has at most 64 bytes. 64 bits of keyed BLAKE2b (RFC 7693).
    """
    digest = hashlib.blake2b(key=secret, digest_size=_DIGEST_BYTES)
    for part in (tenant, entity, text):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return f"<{entity}_{digest.hexdigest()}>"


def replaced(text: str, spans: Sequence[Span], replace: Replace) -> str:
    """`text` with each span's text replaced. Spans are in order, without overlaps."""
    written: list[str] = []
    at = 0
    for span in spans:
        written += (text[at : span.start], replace(span.entity, text[span.start : span.end]))
        at = span.end
    written.append(text[at:])
    return "".join(written)
