"""Who calls. Owns the identity that every later decision is made about; knows nothing of how it was proved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: `id` is stable and safe to log. `models` are the public models it may use; "*" is all of them."""

    id: str
    team: str
    tier: str
    models: frozenset[str]

    def may_use(self, model: str) -> bool:
        return "*" in self.models or model in self.models


ANONYMOUS = Principal("anonymous", "anonymous", "free", frozenset({"*"}))
"""The caller while `identify` is off or only shadowed."""
