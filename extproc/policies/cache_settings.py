"""The section `policies.cache` of gateway.yaml. Must not know: how answers are kept."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.config.section import ModelName, Section

_MOST_SECONDS = 30 * 86_400
TimeToLive = Annotated[float, pydantic.Field(gt=0, le=_MOST_SECONDS)]


class Tenant(enum.StrEnum):
    """Who shares answers: everybody in a team, or nobody but one key."""

    TEAM = "team"
    PRINCIPAL = "principal"


class ModelCache(Section):
    """How one model's answers are cached; what is not given is as for the others."""

    enabled: bool = True
    """False: none of them."""

    ttl_s: TimeToLive | None = None
    """How long an answer is served."""

    sampled: bool | None = None
    """Whether answers to requests that ask for chance are cached, too."""


class Settings(PolicySettings):
    """The cache of answers to requests that are exactly the same. Off unless a section turns it on."""

    mode: PolicyMode = PolicyMode.OFF
    """`enforce` serves from the cache; `shadow` fills it and counts what it would have served; `off` does not run."""

    on_failure: FailureMode = FailureMode.OPEN
    """When the store is lost: `open` goes on without the cache, `closed` refuses the request."""

    tenant: Tenant = Tenant.TEAM
    """Who shares answers: `team`, or `principal` for each key alone."""

    ttl_s: TimeToLive = 3600.0
    """How long an answer is served."""

    max_ttl_s: TimeToLive = 86_400.0
    """The most that a client may ask for with `x-extproc-cache-ttl`."""

    sampled: bool = False
    """Whether answers to requests that ask for chance (a temperature, no seed) are cached, too: chance then falls once
    for all."""

    models: Mapping[ModelName, ModelCache] = {}
    """What is different for some models."""

    max_answer_bytes: Annotated[int, pydantic.Field(ge=1024, le=64 << 20)] = 1 << 20
    """Answers larger than this are not kept."""

    max_entries: Annotated[int, pydantic.Field(ge=1)] = 100_000
    """Most answers that one tenant keeps; the least lately used goes first."""

    max_bytes: Annotated[int, pydantic.Field(ge=1024)] = 256 << 20
    """Most bytes of answers that one tenant keeps."""

    wait_s: Annotated[float, pydantic.Field(ge=0, le=600)] = 30.0
    """Longest time that a request waits for the answer to the same request that is on its way already; 0: never."""

    @property
    def shapes_answers(self) -> bool:
        return False

    @property
    def keeps_answers(self) -> bool:
        return True
