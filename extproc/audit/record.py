"""What an audit record says. The only part of the audit log that policies know. Must not know: where it is kept."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct, field


class Action(enum.StrEnum):
    """What was done."""

    BLOCKED = "blocked"
    REDACTED = "redacted"
    FLAGGED = "flagged"
    CHANGED = "changed"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    CONFIG_TAKEN = "config_taken"
    CONFIG_REFUSED = "config_refused"
    CACHE_PURGED = "cache_purged"
    DRAINED = "drained"
    WEIGHTS_SET = "weights_set"
    ARM_PULLED = "arm_pulled"
    MODEL_LOADED = "model_loaded"
    MODEL_UNLOADED = "model_unloaded"


class Entry(Struct, frozen=True, kw_only=True):
    """One decision or admin action; nothing in it is content.

    `time_s`: Unix seconds. `actor`: the principal's id, or `user@host` for an admin action. `reason` is a label from a
    closed set; `entities` counts what was found by its kind; `subject` is what an admin action was about (a key's id,
    which answers were purged).
    """

    time_s: float
    actor: str
    action: Action
    team: str = ""
    policy: str = ""
    reason: str = ""
    entities: Mapping[str, int] = field(default_factory=dict)
    config_version: str = ""
    request_id: str = ""
    operation: str = ""
    model: str = ""
    subject: str = ""


class AuditTrail(Protocol):
    """Where audit records go."""

    def record(self, entry: Entry) -> None:
        """Keep it. Neither blocks nor raises: what can't be written waits, and `available` says so."""

    @property
    def available(self) -> bool:
        """False while records can't be written."""


class NoTrail:
    """No audit log is configured."""

    available = True

    def record(self, entry: Entry) -> None:
        """Nobody asked for it."""

    def close(self, timeout_s: float) -> None:
        """Nothing waits."""
