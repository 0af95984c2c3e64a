"""The key by which a request keeps to one of its pool's endpoints: equal for requests that had better meet there.

Pure functions of the request. A key is a keyed hash of 64 bits: it tells nothing of what it was made of, and every
worker and replica makes the same one. It is not made apart for each tenant where it comes from the prompt, because what
it is for, the server's cache of keys and values, is not either (docs/routing.md). Must not know: endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import blake3

from extproc.config.balancing import ConsistentHash, HashBy
from extproc.dialects.interface import InferenceRequest, RequestHead, TextSegment
from extproc.principal import ANONYMOUS, Principal

_CONTEXT = "extproc 2026-11 keys of affinity"
_KEY_BYTES = 8
_END = b"\xff"
"""Between two parts of what is hashed; no UTF-8 has it."""


@dataclass(frozen=True, slots=True)
class Affinity:
    """Makes the keys of one pool."""

    settings: ConsistentHash
    hash_key: bytes
    """32 bytes, derived from the gateway's secret."""

    def key(self, request: InferenceRequest, head: RequestHead, principal: Principal) -> str | None:
        """16 hex digits; None if the request has nothing to make one of."""
        parts = self._parts(request, head, principal)
        if parts is None:
            return None
        data = _END.join((self.settings.by.encode(), *parts))
        return blake3.blake3(data, key=self.hash_key).hexdigest(_KEY_BYTES)

    def _parts(self, request: InferenceRequest, head: RequestHead, principal: Principal) -> tuple[bytes, ...] | None:
        by = self.settings.by
        if by is HashBy.PREFIX:
            leading = leading_bytes(request.texts(), self.settings.blocks * self.settings.block_bytes)
            return None if leading is None else (leading, _label(request, "prompt_cache_key"))
        if by is HashBy.PRINCIPAL:
            return None if principal is ANONYMOUS else (principal.id.encode(),)
        if by is HashBy.USER:
            user = _label(request, "user") or _label(request, "safety_identifier")
            return (principal.team.encode(), user) if user else None
        value = head.headers.get(self.settings.header or "")
        return (_utf8(value),) if value else None


def affinity(settings: ConsistentHash | None, secret: bytes) -> Affinity | None:
    """None for a pool that is not balanced by keys."""
    return None if settings is None else Affinity(settings, blake3.blake3(secret, derive_key_context=_CONTEXT).digest())


def leading_bytes(texts: Iterable[TextSegment], count: int) -> bytes | None:
    """The first `count` bytes of the texts with their roles, as far as two prompts can be told apart by them.

    None if there are not so many: the prompt will go on, and what follows would change the key.
    """
    pieces: list[bytes] = []
    missing = count
    for segment in texts:
        role = segment.role.encode() + _END
        text = _utf8(segment.text[:missing])[:missing]  # a character has at least one byte
        pieces += (role, text, _END)
        missing -= len(text)
        if not missing:
            return b"".join(pieces[:-1])
    return None


def _label(request: InferenceRequest, name: str) -> bytes:
    """A label of the request's own; empty if it has none of this name."""
    return next((_utf8(label.text) for label in request.labels() if label.locator == (name,)), b"")


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
