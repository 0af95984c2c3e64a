"""Bytes in a store that others may write to: sealed under their name, and compressed where that pays.

Owns the form: one byte for version and compression, 16 of a keyed BLAKE3 over name and content, the content. What was
changed, cut, moved from under another name or written with another secret does not open. Must not know: what it seals.
"""

from __future__ import annotations

import hmac
import zlib

import blake3

MOST_BYTES = 128 << 20
"""Nothing unpacks to more."""

_CONTEXT = "extproc 2026-11 seal of kept answers"
_NAMES = "extproc 2026-11 names of kept answers"
_MAC_BYTES = 16
_PLAIN, _DEFLATED = b"\x01", b"\x02"
_WORTH_IT_BYTES = 1024
_FASTEST = 1


class Broken(ValueError):
    """It is not what was sealed under this name."""


class Sealer:
    """With keys of its own, derived from the secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = blake3.blake3(secret, derive_key_context=_CONTEXT).digest()
        self._names = blake3.blake3(secret, derive_key_context=_NAMES).digest()

    def digest(self, data: bytes) -> str:
        """A keyed hash of 256 bits, in hex."""
        return blake3.blake3(data, key=self._names).hexdigest()

    def seal(self, name: str, content: bytes) -> bytes:
        form, packed = _PLAIN, content
        if len(content) >= _WORTH_IT_BYTES:
            deflated = zlib.compress(content, _FASTEST)
            if len(deflated) < len(content):
                form, packed = _DEFLATED, deflated
        return form + self._mac(name, form, packed) + packed

    def open(self, name: str, sealed: bytes) -> bytes:
        """Raises Broken."""
        form, mac, packed = sealed[:1], sealed[1 : 1 + _MAC_BYTES], sealed[1 + _MAC_BYTES :]
        if not hmac.compare_digest(mac, self._mac(name, form, packed)):
            raise Broken
        if form == _PLAIN:
            return packed
        if form != _DEFLATED:
            raise Broken
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(packed, MOST_BYTES)
        except zlib.error as error:
            raise Broken from error
        if not inflater.eof:
            raise Broken
        return content

    def _mac(self, name: str, form: bytes, packed: bytes) -> bytes:
        mac = blake3.blake3(key=self._key)
        mac.update(form + len(name).to_bytes(4, "big") + name.encode())
        mac.update(packed)
        return mac.digest(length=_MAC_BYTES)
