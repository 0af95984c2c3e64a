"""The rules of `policies.route`: which requests go elsewhere than their model's own pool.

Must not know: how a request is matched, or what becomes of it.
"""

import datetime
import enum
import zoneinfo
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.section import ModelName, Name, Section

_Text = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=256)]
_Texts = Annotated[tuple[_Text, ...], pydantic.Field(min_length=1)]
_ClockTime = Annotated[str, pydantic.StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_Tokens = Annotated[int, pydantic.Field(ge=0)]
_Probability = Annotated[float, pydantic.Field(ge=0, le=1)]
_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-api-key", "proxy-authorization"})


def _readable_header(name: str) -> str:
    if name in _SECRET_HEADERS:
        raise ValueError(f"{name} carries a secret, which has no place here")
    if name.startswith("x-extproc-"):
        raise ValueError("no client's x-extproc- header reaches a rule")
    return name


HeaderName = Annotated[
    str,
    pydantic.StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$"),
    pydantic.AfterValidator(_readable_header),
]


class Day(enum.StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


def _known_zone(name: str) -> str:
    try:
        zone_of(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise ValueError("there is no such time zone") from None
    return name


def zone_of(name: str) -> datetime.tzinfo:
    """`UTC`, which is there without any file, or a zone of the time zone database."""
    return datetime.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


class TimeOfDay(Section):
    """A window that opens every day, or on some days. Where `from` is later than `until`, it lies over midnight."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    from_: Annotated[_ClockTime, pydantic.Field(alias="from")]
    """`HH:MM` from which it is open."""

    until: _ClockTime
    """`HH:MM` from which it is closed again."""

    days: Annotated[tuple[Day, ...], pydantic.Field(min_length=1)] = tuple(Day)
    """The days on which it opens."""

    zone: Annotated[str, pydantic.AfterValidator(_known_zone)] = "UTC"
    """Whose clock: `UTC`, or a name such as `Europe/Berlin`; summer time is that of the zone."""

    @pydantic.model_validator(mode="after")
    def _is_some_time(self) -> "TimeOfDay":
        if self.from_ == self.until:
            raise ValueError("from and until are the same; leave the condition out for the whole day")
        return self


class TokenRange(Section):
    """How long a prompt is, counted exactly, with the tokenizer of the model that was asked for."""

    min: _Tokens = 0
    """Fewest tokens."""

    max: _Tokens | None = None
    """Most tokens."""

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "TokenRange":
        if self.max is not None and self.max < self.min:
            raise ValueError("max is less than min")
        return self


class ComplexityRange(Section):
    """How much a task needs a strong model, 0 to 1, by the encoder's head."""

    min: _Probability = 0.0
    """Least."""

    max: _Probability = 1.0
    """Most."""

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "ComplexityRange":
        if self.max < self.min:
            raise ValueError("max is less than min")
        return self


class Conditions(Section):
    """All that are given have to hold; none is every request."""

    models: Annotated[tuple[ModelName, ...], pydantic.Field(min_length=1)] | None = None
    """The model that was asked for is one of these."""

    principals: _Texts | None = None
    """The caller is one of these: ids of API keys, or names under `keys.static`."""

    teams: _Texts | None = None
    """The caller's team is one of these."""

    tiers: _Texts | None = None
    """The caller's tier is one of these."""

    headers: Annotated[Mapping[HeaderName, _Text], pydantic.Field(min_length=1)] | None = None
    """The request has each of these headers (named in lower case), with just this value; `*` is any value."""

    images: bool | None = None
    """There are images in the request, or none."""

    tools: bool | None = None
    """The request offers tools to the model, or none."""

    time_of_day: TimeOfDay | None = None
    """The request arrives within this window."""

    prompt_tokens: TokenRange | None = None
    """The prompt is so long; a prompt whose tokens nobody can count is not."""

    complexity: ComplexityRange | None = None
    """The last user turn is so hard. The encoder reads its beginning, for requests that get as far as this rule."""


class Target(Section):
    """Where requests go: one of the four."""

    model: ModelName | None = None
    """Another model, with its own pool, tokenizer, limits and price, as if it had been asked for."""

    pool: Name | None = None
    """A pool that serves the same model."""

    experiment: Name | None = None
    """An experiment, one of whose arms takes it."""

    cascade: Name | None = None
    """A cascade, whose small model is tried before the one that was asked for."""

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> "Target":
        if sum(part is not None for part in (self.model, self.pool, self.experiment, self.cascade)) != 1:
            raise ValueError("give model, pool, experiment or cascade, one of them")
        return self


class Rule(Section):
    """What some requests have in common, and where they go."""

    name: Name
    """What it is called in metrics and by `extproc route --explain`."""

    when: Conditions = Conditions()
    """Which requests; without it, all that get as far as this rule."""

    to: Target
    """Where they go."""
