"""The section `policies.limit` of gateway.yaml.

Must not know: how a request is charged.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

import pydantic

from extproc.config.policy import PolicySettings
from extproc.config.section import Name, Section
from extproc.limits import MOST_EXACT, Lost, Measure, Period, bucket
from extproc.money import nano_from_decimal
from extproc.policies.limit_adaptive import Adaptive

_MOST_SECONDS = 31 * 86_400
Amount = Annotated[int, pydantic.Field(ge=1, le=MOST_EXACT)]
Money = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9]{1,7}(\.[0-9]{1,9})?$")]


class Algorithm(enum.StrEnum):
    """`token_bucket` refills steadily and lets a burst of the whole amount through; `sliding_window` never lets more
    than the amount through in any stretch of the window's length."""

    TOKEN_BUCKET = "token_bucket"  # noqa: S105 (no password)
    SLIDING_WINDOW = "sliding_window"


class LimitMode(enum.StrEnum):
    """`enforce` refuses; `shadow` counts and reports what it would have refused."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class Scope(enum.StrEnum):
    """Who or what shares a limit."""

    KEY = "key"
    TEAM = "team"
    TIER = "tier"
    MODEL = "model"
    KEY_MODEL = "key_model"
    GLOBAL = "global"


class BudgetScope(enum.StrEnum):
    """Who shares a budget."""

    KEY = "key"
    TEAM = "team"


class BudgetPeriod(enum.StrEnum):
    """When a budget begins anew: each day or month in UTC, or never."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    @property
    def number(self) -> Period:
        return Period[self.name]


class Midstream(enum.StrEnum):
    """What becomes of a stream whose limit is spent: it is ended cleanly, or allowed to go on into debt."""

    END = "end"
    ALLOW = "allow"


class KnownAnswers(enum.StrEnum):
    """What an answer from a cache costs: nothing, a request, or all that it would have cost from a model."""

    NOTHING = "nothing"
    REQUEST = "request"
    AS_USED = "as_used"


class KeyLimits(Section):
    """What one API key may use; null is no limit."""

    requests_per_minute: Amount | None = None
    """Requests that one key may make in a minute."""

    tokens_per_minute: Amount | None = None
    """Tokens, of prompts and answers together, that one key may use in a minute."""

    tokens_per_day: Amount | None = None
    """Tokens that one key may use in a day."""

    concurrent_requests: Amount | None = None
    """Requests that one key may have open at a time."""

    algorithm: Algorithm = Algorithm.TOKEN_BUCKET
    """How the three rates are counted: `token_bucket` or `sliding_window`."""

    mode: LimitMode = LimitMode.ENFORCE
    """`enforce` refuses; `shadow` counts and reports what it would have refused."""


class FreeTier(KeyLimits):
    """Keys of the tier `free`."""

    requests_per_minute: Amount | None = 10
    """Requests that one key may make in a minute."""

    tokens_per_minute: Amount | None = 10_000
    """Tokens, of prompts and answers together, that one key may use in a minute."""

    tokens_per_day: Amount | None = 100_000
    """Tokens that one key may use in a day."""


class BasicTier(KeyLimits):
    """Keys of the tier `basic`."""

    requests_per_minute: Amount | None = 100
    """Requests that one key may make in a minute."""

    tokens_per_minute: Amount | None = 100_000
    """Tokens, of prompts and answers together, that one key may use in a minute."""

    tokens_per_day: Amount | None = 1_000_000
    """Tokens that one key may use in a day."""


class ProTier(KeyLimits):
    """Keys of the tier `pro`."""

    requests_per_minute: Amount | None = 500
    """Requests that one key may make in a minute."""

    tokens_per_minute: Amount | None = 500_000
    """Tokens, of prompts and answers together, that one key may use in a minute."""

    tokens_per_day: Amount | None = 5_000_000
    """Tokens that one key may use in a day."""


class Tiers(Section):
    """What a key of each tier may use. What is not given here keeps its default."""

    free: FreeTier = FreeTier()
    """Keys of the tier `free`."""

    basic: BasicTier = BasicTier()
    """Keys of the tier `basic`."""

    pro: ProTier = ProTier()
    """Keys of the tier `pro`."""

    enterprise: KeyLimits = KeyLimits()
    """Keys of the tier `enterprise`: no limits unless they are given."""


class ExtraLimit(Section):
    """One more limit, beside those of the tiers. It holds for requests that match every filter given."""

    scope: Scope
    """Who shares it: each `key`, `team`, `tier`, `model`, `key_model` pair, or all (`global`)."""

    measure: Measure
    """What is counted: `requests`, `tokens`, `input_tokens`, `output_tokens`, `concurrent`."""

    amount: Amount
    """How much of it."""

    window_s: Annotated[int, pydantic.Field(ge=1, le=_MOST_SECONDS)] = 60
    """In how many seconds; means nothing for `concurrent`."""

    algorithm: Algorithm = Algorithm.TOKEN_BUCKET
    """How it is counted: `token_bucket` or `sliding_window`."""

    mode: LimitMode = LimitMode.ENFORCE
    """`enforce` refuses; `shadow` counts and reports what it would have refused."""

    keys: tuple[str, ...] = ()
    """Only for these keys, by id; by default all."""

    teams: tuple[str, ...] = ()
    """Only for these teams; by default all."""

    tiers: tuple[str, ...] = ()
    """Only for these tiers; by default all."""

    models: tuple[str, ...] = ()
    """Only for these models; by default all."""

    @pydantic.model_validator(mode="after")
    def _countable(self) -> ExtraLimit:
        if self.measure is Measure.MONEY:
            raise ValueError("money is limited by `budgets`")
        if self.measure is not Measure.CONCURRENT and self.algorithm is Algorithm.TOKEN_BUCKET:
            bucket("", self.measure, self.amount, self.window_s * 1000)
        return self


class Budget(Section):
    """How much money may be spent. Needs `price` on the models; a model without one costs nothing."""

    scope: BudgetScope
    """Who shares it: each `key` or each `team`."""

    per: BudgetPeriod = BudgetPeriod.MONTH
    """`day` and `month` begin anew at midnight UTC, `total` never does."""

    amount: Money
    """How much, in the currency of the prices: a decimal number in quotes, `"10.00"`."""

    soft: Annotated[float, pydantic.Field(gt=0, le=1)] | None = 0.8
    """From this share on it is told in a header, a log line and a metric; null to tell nothing."""

    mode: LimitMode = LimitMode.ENFORCE
    """`enforce` refuses; `shadow` counts and reports what it would have refused."""

    keys: tuple[str, ...] = ()
    """Only for these keys, by id; by default all."""

    teams: tuple[str, ...] = ()
    """Only for these teams; by default all."""

    @pydantic.model_validator(mode="after")
    def _positive(self) -> Budget:
        if not 0 < self.amount_nano <= MOST_EXACT:
            raise ValueError("a budget is more than 0 and less than 4.5 million")
        return self

    @property
    def amount_nano(self) -> int:
        return nano_from_decimal(Decimal(self.amount))

    @property
    def soft_nano(self) -> int:
        return 0 if self.soft is None else int(self.amount_nano * Decimal(str(self.soft)))


class Settings(PolicySettings):
    """Limits and budgets: reserved before a request goes on, settled when it is over."""

    tiers: Tiers = Tiers()
    """What a key may use, by its tier."""

    keys: Mapping[str, KeyLimits] = {}
    """Keys with limits of their own, by id: what is given here holds instead of the tier's."""

    limits: Mapping[Name, ExtraLimit] = {}
    """More limits, by name."""

    budgets: Mapping[Name, Budget] = {}
    """Budgets in money, by name."""

    adaptive: Adaptive | None = None
    """Limits that go down while the model servers are busy; null: they don't."""

    reservation_ttl_s: Annotated[float, pydantic.Field(ge=5, le=3600)] = 30.0
    """What a killed worker had reserved is given back after so long; living ones renew theirs."""

    midstream: Midstream = Midstream.END
    """A stream that outruns its limit is ended with `finish_reason: length` (`end`), or goes on (`allow`)."""

    redis_lost: Lost = Lost.SHARE
    """While Redis is lost: `share` lets each worker use its part of every limit, `closed` refuses with 503."""

    known_answers: KnownAnswers = KnownAnswers.REQUEST
    """What an answer from a cache costs: a `request` and no tokens, `nothing`, or all that it would have cost from a
    model (`as_used`)."""

    @property
    def shapes_answers(self) -> bool:
        return False
