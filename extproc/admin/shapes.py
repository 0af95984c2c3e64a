"""What the admin API takes and gives, as types: their JSON Schema is in `/openapi.json`.

Every text that comes in is bounded. Must not know: where any of it comes from.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from extproc.admin.endpoints import Input
from extproc.config.tier import Tier

# Python's `$` also matches before a last newline, JSON Schema's does not: `(?!\n)` makes them agree.
END = r"$(?!\n)"
KeyId = Annotated[str, Meta(pattern=rf"^key-[0-9a-f]{{12}}{END}", description="As a key's `id`.")]
KeyName = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=rf"^[^\u0000-\u001f\u007f]+{END}", description="What it is for.")
]
Team = Annotated[
    str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}{END}", description="Whom its use is counted for.")
]
ModelOrAll = Annotated[
    str, Meta(pattern=rf"^(\*|[A-Za-z0-9][A-Za-z0-9._:/@+-]{{0,127}}){END}", description="A public name; `*`: all.")
]
Models = Annotated[tuple[ModelOrAll, ...], Meta(min_length=1, max_length=100)]
Label = Annotated[str, Meta(max_length=200)]
PageSize = Annotated[int, Meta(ge=1, le=1000, description="The most that are listed.")]
Since = Annotated[float, Meta(ge=0, le=1e11, description="Unix seconds of the earliest request that counts.")]
Until = Annotated[float, Meta(ge=0, le=1e11, description="Unix seconds; what arrived then or later does not count.")]


class NewKey(Input, frozen=True, kw_only=True):
    """A key to be made."""

    name: KeyName
    team: Team = "default"
    tier: Tier = Tier.FREE
    models: Models = ("*",)


class OneKey(Input, frozen=True, kw_only=True):
    """The key that is meant."""

    id: KeyId


class WhichKeys(Input, frozen=True, kw_only=True):
    """Which keys to list, oldest first. The next page begins `after` the last of this one."""

    limit: PageSize = 100
    after: KeyId | UnsetType = UNSET
    team: Team | UnsetType = UNSET


class Key(Struct, frozen=True, kw_only=True):
    """What is known of a key; not its text. `created` is RFC 3339."""

    id: str
    name: str
    team: str
    tier: Tier
    models: tuple[str, ...]
    created: str
    revoked: bool


class Keys(Struct, frozen=True, kw_only=True):
    """`more`: there are others after these."""

    keys: tuple[Key, ...]
    more: bool


class CreatedKey(Struct, frozen=True, kw_only=True):
    """`key` is its text, shown now and never again; `hash` is for `keys.static` in gateway.yaml."""

    key: str
    hash: str
    record: Key


class Whose(Input, frozen=True, kw_only=True):
    """Whose limits: a key's id, or the name of one in gateway.yaml; and for which model, if that matters."""

    principal: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_-]{{0,62}}{END}")]
    model: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{{0,127}}{END}")] | UnsetType = UNSET


class Standing(Struct, frozen=True, kw_only=True):
    """One limit and what is left of it. Money (`unit` money_nano) is in billionths of the models' currency.

    `resets_in_s`: when all of it is there again, if nothing more is used; null: never. `shadow`: only watched.
    """

    name: str
    unit: str
    amount: int
    used: int
    remaining: int
    resets_in_s: float | None
    shadow: bool


class Standings(Struct, frozen=True, kw_only=True):
    """A caller's limits, before any are lowered for the model servers' sake. `mode`: enforce, shadow or off."""

    principal: str
    team: str
    tier: str
    mode: str
    limits: tuple[Standing, ...]


class WhichUsage(Input, frozen=True, kw_only=True):
    """Which requests to sum up, and by what: up to three of the dimensions, joined by commas."""

    by: Annotated[
        str,
        Meta(
            pattern=r"^(principal|team|tier|model|operation|pool|day|termination|cache)"
            rf"(,(principal|team|tier|model|operation|pool|day|termination|cache)){{0,2}}{END}"
        ),
    ] = "team,model"
    since: Since | UnsetType = UNSET
    until: Until | UnsetType = UNSET


class UsageGroup(Struct, frozen=True, kw_only=True):
    """`group` has the value of each dimension. `cost_nano` is by currency, in billionths of it."""

    group: dict[str, str]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    saved_tokens: int
    cost_nano: dict[str, int]


class Usage(Struct, frozen=True, kw_only=True):
    """The groups with the most requests first. `left_out`: groups beyond the thousand that are listed."""

    groups: tuple[UsageGroup, ...]
    total: UsageGroup
    left_out: int
    unreadable_records: int


class WhichAnswers(Input, frozen=True, kw_only=True):
    """Which kept answers; what is not given may be any. A tenant is a team, or `principal:ID`."""

    tenant: Label | UnsetType = UNSET
    model: Label | UnsetType = UNSET
    namespace: Label | UnsetType = UNSET


class Purge(Input, frozen=True, kw_only=True):
    """Which kept answers to forget. `all` has to be said where nothing else is."""

    tenant: Label | UnsetType = UNSET
    model: Label | UnsetType = UNSET
    namespace: Label | UnsetType = UNSET
    all: bool = False


class Purged(Struct, frozen=True, kw_only=True):
    """How many answers were forgotten."""

    forgotten: int


class HeldAnswers(Struct, frozen=True, kw_only=True):
    """Kept answers of one tenant, model and namespace."""

    tenant: str
    model: str
    namespace: str
    entries: int
    bytes: int


class CacheStats(Struct, frozen=True, kw_only=True):
    """The groups with the most bytes first. `left_out`: groups beyond the thousand that are listed."""

    groups: tuple[HeldAnswers, ...]
    entries: int
    bytes: int
    left_out: int


class Running(Struct, frozen=True, kw_only=True):
    """What runs here. `ready`: every worker takes requests."""

    config_version: str
    workers: int
    ready: bool
    draining: bool


class Draining(Struct, frozen=True, kw_only=True):
    """It has begun: no new requests, those in flight have `grace_s` to end, and then the process does."""

    grace_s: float


class WhichModel(Input, frozen=True, kw_only=True):
    """A model of a mesh, by its name on the servers; `mesh` where several have it."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    mesh: Label | UnsetType = UNSET


class OnDemandModel(Struct, frozen=True, kw_only=True):
    """One that is loaded when a request needs it. `in_use` and `waiting` are requests, `load_s` what its last load
    took, `error` why that failed."""

    mesh: str
    model: str
    state: str
    in_use: int
    waiting: int
    memory_mb: int | None
    keep: bool
    load_s: float
    error: str


class OnDemandModels(Struct, frozen=True, kw_only=True):
    """All of them."""

    models: tuple[OnDemandModel, ...]
