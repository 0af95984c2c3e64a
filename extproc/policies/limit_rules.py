"""Which limits hold for a request, and what each of them is charged.

Pure: settings and facts in, charges out. Must not know: where charges go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from extproc.limits import PERCENT, Charge, Limit, Measure, bucket, budget, gauge, key_of, sliding
from extproc.money import Price, cost_nano
from extproc.policies.limit_settings import (
    Algorithm,
    Budget,
    ExtraLimit,
    KeyLimits,
    LimitMode,
    Scope,
    Settings,
)
from extproc.principal import Principal

_MINUTE_S, _DAY_S = 60, 86_400
_CACHED = 10_000

_SUBJECTS: Mapping[Scope, Callable[[Principal, str], str]] = {
    Scope.KEY: lambda principal, model: principal.id,
    Scope.TEAM: lambda principal, model: principal.team,
    Scope.TIER: lambda principal, model: principal.tier,
    Scope.MODEL: lambda principal, model: model,
    Scope.KEY_MODEL: lambda principal, model: f"{principal.id}|{model}",
    Scope.GLOBAL: lambda principal, model: "all",
}
_OF_MODELS = frozenset({Scope.MODEL, Scope.KEY_MODEL})
_COUNTED_ONCE = frozenset({Measure.REQUESTS, Measure.CONCURRENT})
_OF_ONE_TIER = frozenset({Scope.KEY, Scope.KEY_MODEL, Scope.TIER})


class Applied(Struct, frozen=True):
    """A limit and the counter of the one whom it concerns here."""

    limit: Limit
    key: str


class Rule(Struct, frozen=True):
    """A limit, who shares it, and for whom it holds (no names: all)."""

    limit: Limit
    scope: Scope
    keys: frozenset[str] = frozenset()
    teams: frozenset[str] = frozenset()
    tiers: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    def holds(self, principal: Principal, model: str) -> bool:
        """`model` is empty while it is not known: what depends on it doesn't hold then."""
        if not model and (self.models or self.scope in _OF_MODELS):
            return False
        asked = ((self.keys, principal.id), (self.teams, principal.team), (self.tiers, principal.tier))
        return all(not names or name in names for names, name in (*asked, (self.models, model)))


class Rules:
    """Every limit of one configuration."""

    def __init__(self, settings: Settings) -> None:
        self._tiers: Mapping[str, KeyLimits] = {
            "free": settings.tiers.free,
            "basic": settings.tiers.basic,
            "pro": settings.tiers.pro,
            "enterprise": settings.tiers.enterprise,
        }
        self._keys = settings.keys
        self._rules = [_extra(name, extra) for name, extra in settings.limits.items()]
        self._rules += [_budget(name, own) for name, own in settings.budgets.items()]
        self._known: dict[tuple[str, str, str, str, int], tuple[Applied, ...]] = {}

    def applied(self, principal: Principal, model: str, percent: int = PERCENT) -> tuple[Applied, ...]:
        """The limits that hold for this caller and this model, and what is left of them."""
        asked = (principal.id, principal.team, principal.tier, model, percent)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            known = self._known[asked] = tuple(self._find(principal, model, percent))
        return known

    def _find(self, principal: Principal, model: str, percent: int) -> Iterator[Applied]:
        for limit in _of_key(self._own(principal)):
            yield Applied(limit.scaled(percent, slower=True), key_of(limit, principal.id))
        for rule in self._rules:
            if rule.holds(principal, model):
                limit = rule.limit.scaled(percent, slower=rule.scope in _OF_ONE_TIER)
                yield Applied(limit, key_of(limit, _SUBJECTS[rule.scope](principal, model)))

    def _own(self, principal: Principal) -> KeyLimits:
        tier = self._tiers.get(principal.tier, self._tiers["free"])
        own = self._keys.get(principal.id)
        if own is None:
            return tier
        return tier.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


class Size(Struct, frozen=True):
    """What one request takes: tokens of its prompt and its answer, and the model's price if it has one. `tried`: what
    another model took for it before, whose answer was not good enough."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    price: Price | None = None
    tried: Size | None = None

    def of(self, measure: Measure) -> int:
        """How much of a measure that is."""
        own = self._own(measure)
        return own if self.tried is None or measure in _COUNTED_ONCE else own + self.tried.of(measure)

    def _own(self, measure: Measure) -> int:
        if measure is Measure.TOKENS:
            return self.prompt_tokens + self.output_tokens
        if measure is Measure.INPUT_TOKENS:
            return self.prompt_tokens
        if measure is Measure.OUTPUT_TOKENS:
            return self.output_tokens
        if measure is Measure.MONEY:
            if self.price is None:
                return 0
            return cost_nano(self.price, self.prompt_tokens, self.cached_tokens, self.output_tokens)
        return 1


def charges(applied: Sequence[Applied], size: Size) -> list[Charge]:
    """What is taken for a request of this expected size."""
    return [Charge(one.key, one.limit, size.of(one.limit.measure), settled(one.limit.measure, None)) for one in applied]


def settled(measure: Measure, size: Size | None) -> int:
    """What remains taken when a request is over. None: nothing of it is charged, or nobody knows what it used."""
    if measure is Measure.REQUESTS:
        return 1
    if measure is Measure.CONCURRENT or size is None:
        return 0
    return size.of(measure)


def fitting_output(applied: Sequence[Applied], size: Size, least_tokens: int) -> int | Limit:
    """How much of the expected answer to reserve: no limit shall be asked for more than half of what it could give
    beyond the prompt, or a key with a small one would be refused everything. A limit: not even the least ever fits."""
    output = size.output_tokens
    for limit in (one.limit for one in applied if not one.limit.shadow):
        if Size(size.prompt_tokens, least_tokens, 0, size.price).of(limit.measure) > limit.most:
            return limit
        if limit.measure is Measure.TOKENS:
            output = min(output, max(least_tokens, (limit.amount - size.prompt_tokens) // 2))
        elif limit.measure is Measure.OUTPUT_TOKENS:
            output = min(output, max(least_tokens, limit.amount // 2))
        elif limit.measure is Measure.MONEY:
            output = _affordable(limit, size, output, least_tokens)
    return output


def _affordable(limit: Limit, size: Size, output: int, least: int) -> int:
    """The largest answer up to `output` that a whole budget pays for."""
    while output > least and Size(size.prompt_tokens, output, 0, size.price).of(Measure.MONEY) > limit.amount:
        output = max(least, output // 2)
    return output


def _of_key(own: KeyLimits) -> Iterator[Limit]:
    shadow = own.mode is LimitMode.SHADOW
    rates = (
        ("tier:requests_per_minute", Measure.REQUESTS, own.requests_per_minute, _MINUTE_S),
        ("tier:tokens_per_minute", Measure.TOKENS, own.tokens_per_minute, _MINUTE_S),
        ("tier:tokens_per_day", Measure.TOKENS, own.tokens_per_day, _DAY_S),
    )
    for name, measure, amount, window_s in rates:
        if amount is not None:
            yield _rate(name, measure, amount, window_s, own.algorithm, shadow)
    if own.concurrent_requests is not None:
        yield gauge("tier:concurrent_requests", own.concurrent_requests, shadow=shadow)


def _rate(name: str, measure: Measure, amount: int, window_s: int, algorithm: Algorithm, shadow: bool) -> Limit:
    make = bucket if algorithm is Algorithm.TOKEN_BUCKET else sliding
    return make(name, measure, amount, window_s * 1000, shadow=shadow)


def _extra(name: str, extra: ExtraLimit) -> Rule:
    shadow = extra.mode is LimitMode.SHADOW
    if extra.measure is Measure.CONCURRENT:
        limit = gauge(name, extra.amount, shadow=shadow)
    else:
        limit = _rate(name, extra.measure, extra.amount, extra.window_s, extra.algorithm, shadow)
    filters = (frozenset(extra.keys), frozenset(extra.teams), frozenset(extra.tiers), frozenset(extra.models))
    return Rule(limit, extra.scope, *filters)


def _budget(name: str, own: Budget) -> Rule:
    shadow = own.mode is LimitMode.SHADOW
    limit = budget(f"budget:{name}", own.amount_nano, own.per.number, soft=own.soft_nano, shadow=shadow)
    return Rule(limit, Scope(own.scope), frozenset(own.keys), frozenset(own.teams))
