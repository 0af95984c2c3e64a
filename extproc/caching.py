"""The vocabulary of the answer caches: what an answer is kept under, and what the store of answers can do.

Shared by the policies, which decide what is kept and what is served, and the stores, which keep it. Knows nothing of
Redis or of HTTP. What is kept is opaque bytes here.

Tenants are kept apart by construction: a tenant is part of an entry's digest, of its key, and of the seal on its bytes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class EntryName(Struct, frozen=True):
    """What an answer is kept under. `digest` stands for everything that can change the answer (a keyed hash);
    the other three are in the clear, so that it can be purged and counted by them."""

    tenant: str
    model: str
    namespace: str
    digest: str


class Quota(Struct, frozen=True):
    """The most that one tenant may keep; what was used least lately goes first."""

    entries: int
    size_bytes: int


class Room(Struct, frozen=True):
    """What keeping an answer cost its tenant: how many others went, and how much of each quota is used now."""

    evicted: int
    entries_ratio: float
    bytes_ratio: float


class Found(Struct, frozen=True):
    """An answer that was kept: the bytes that were put, and how long ago by the store's own clock."""

    body: bytes
    age_s: float


class Absent(Struct, frozen=True):
    """There is none. `leads`: whoever asked with a token is the one who fetches it, until he releases it."""

    leads: bool = False


class Outcome(StrEnum):
    """What became of an answer that others wait for."""

    STORED = "stored"
    NOT_STORED = "not_stored"  # a good one, that is not for others: nobody waits for the next
    FAILED = "failed"  # whoever asks next leads


class Follower(Protocol):
    """One who waits for an answer that another fetches, here or in any other process."""

    async def outcome(self, timeout_s: float) -> Outcome | None:
        """None: nothing was heard in time, which can mean anything."""


class AnswerStore(Protocol):
    """Where answers are kept. Methods raise DependencyError when the store is lost or too slow."""

    def digest(self, data: bytes) -> str:
        """A keyed cryptographic hash, as text fit for names: useless to who can read the store but not the secret."""

    async def get(self, name: EntryName, token: str = "") -> Found | Absent:
        """The answer, which counts as used now. With a token: if there is none, whoever comes first leads.

        What can't be read (damaged, forged, moved from under another name) is deleted and absent.
        """

    async def put(self, name: EntryName, body: bytes, ttl_s: float, quota: Quota) -> None:
        """Keep an answer in place of any before it; others go for it as the quota asks. What alone is too large for the
        quota is not kept."""

    async def delete(self, name: EntryName) -> None:
        """Forget an answer, and its vector, if there is one."""

    async def release(self, name: EntryName, token: str, outcome: Outcome) -> None:
        """The leader is done: whoever waits is told. Another's token changes nothing."""

    def follow(self, name: EntryName) -> AbstractContextManager[Follower]:
        """Listen for what becomes of an answer; begun before asking for it, so that nothing is missed."""


class Neighbour(Struct, frozen=True):
    """An answer whose question is near: `similarity` is (1 + cosine) / 2, as Redis's vector sets have it."""

    name: EntryName
    similarity: float
    question: str


class Neighbourhood(Struct, frozen=True):
    """What is near a question, nearest first. `threshold`: where answers were wrong nearby, the least similarity that
    was learned to be right, else 0; `lessons` says which of them it is from."""

    neighbours: tuple[Neighbour, ...] = ()
    threshold: float = 0.0
    lessons: tuple[str, ...] = ()


class Served(Struct, frozen=True):
    """An answer that was given: for which response, from which entry, how near. Exact ones have no `identity`."""

    response: str
    name: EntryName
    identity: str = ""
    similarity: float = 1.0
    lessons: tuple[str, ...] = ()


class Learning(Struct, frozen=True):
    """How thresholds are learned from reports of wrong answers.

    A report raises the threshold around its question to above what was wrong, by `step`; every answer served there
    lowers it by `step * target_error_rate`. So where users report what is wrong, in the long run no more than
    `target_error_rate` of the answers served around a question are (adaptive conformal inference: Gibbs and Candès,
    2021). `radius`: the least similarity of what is around a question.
    """

    target_error_rate: float
    step: float
    radius: float
    remembered_s: float


class SemanticIndex(Protocol):
    """Where answers are found by their questions. Methods raise DependencyError when it is lost or too slow."""

    async def near(
        self, name: EntryName, identity: str, vector: bytes, count: int, least: float, radius: float
    ) -> Neighbourhood:
        """The `count` nearest questions of one identity that have an answer, at least so similar, and what was learned
        within `radius`. Of `name` only tenant, model and namespace matter."""

    async def add(self, name: EntryName, identity: str, vector: bytes, question: str, quota: Quota) -> None:
        """Let an answer that is kept be found; it can be for as long as it is kept."""

    async def served(self, served: Served, learning: Learning) -> None:
        """An answer was given."""

    async def wrong(self, tenant: str, response: str, learning: Learning) -> bool:
        """It was wrong: it goes, and the threshold around its question rises. False: this tenant was not served such a
        response, or it is too long ago, or it was reported already."""
