"""Which model, pool and arm serve this request. The cluster and the endpoint within the pool are Envoy's choice.

The first rule that the request meets says so; without one it is the asked model's own pool. What a rule has to know
that is dear, the prompt's tokens and the encoder's word, is found out only for requests that get as far as that rule.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.config.rules import Rule
from extproc.config.section import Seconds
from extproc.dialects.interface import InvalidRequest
from extproc.errors import DependencyError
from extproc.operation import Operation
from extproc.policies import route_facts
from extproc.policies.cascade_exchange import Cascading
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Verdict
from extproc.policies.prompt_tokens import counted
from extproc.policies.route_cascade import cascading
from extproc.routing.destinations import DEFAULT, Destination, Destinations
from extproc.routing.rules import Need, Rules, with_known

_OPERATIONS = frozenset(Operation)
_ENCODER = "encoder"


class Settings(PolicySettings):
    """Which pool serves a request."""

    on_failure: FailureMode = FailureMode.OPEN
    """When the encoder is lost: `open` lets no rule match that asks for complexity, `closed` refuses the requests that
    get as far as such a rule."""

    rules: Annotated[tuple[Rule, ...], pydantic.Field(max_length=1000)] = ()
    """Tried in their order; the first whose conditions all hold says where a request goes."""

    complexity_deadline_s: Seconds = 0.25
    """The encoder's word on a task's complexity is waited for so long."""

    @property
    def uses_encoder(self) -> bool:
        return any(rule.when.complexity is not None for rule in self.rules)

    @property
    def uses_scan(self) -> bool:
        return False

    @property
    def shapes_answers(self) -> bool:
        return False  # what serves a request is part of its answer's key, whichever rule said so


class Route:
    name: ClassVar[str] = "route"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._encoder = services.encoder
        self._metrics = services.metrics
        self._destinations = Destinations(services.catalog, services.experiments)
        self._rules = Rules(settings.rules, self._destinations.serves)

    async def on_request(self, ctx: RequestContext) -> Verdict:
        try:
            destination = await self._decide(ctx)
        except InvalidRequest as error:
            return Reject(error.rejection)
        self._metrics.routing.routed(destination.rule)
        if self._settings.mode is PolicyMode.SHADOW:
            destination = Destination(DEFAULT, ctx.model, ctx.model.pool)
        if destination.model is not ctx.model:
            ctx.serve_by(destination.model)
        refusal = destination.pool.dialect.check(ctx.request)
        if refusal is not None:
            return Reject(refusal)
        ctx.destination = destination
        ctx.cascading = await self._cascading(ctx, destination)
        ctx.pool = destination.pool if ctx.cascading is None else ctx.cascading.first.pool
        return CONTINUE

    async def _cascading(self, ctx: RequestContext, destination: Destination) -> Cascading | None:
        if destination.cascade is None:
            return None
        begun = await cascading(ctx, destination.cascade)
        if begun is None:
            self._metrics.routing.cascaded(destination.cascade.name, "skipped", "unfit")
        return begun

    async def _decide(self, ctx: RequestContext) -> Destination:
        facts = route_facts.facts_of(ctx.request, ctx.principal, ctx.head.headers, ctx.arrived_wall_s)
        facts.reachable = ctx.reachable
        rules = self._rules if ctx.operation in _OPERATIONS else None  # questions about a model go where it is at home
        found = rules.first(facts) if rules is not None else None
        while isinstance(found, Need):
            assert rules is not None
            facts = with_known(facts, found, await self._learn(ctx, found))
            found = rules.first(facts)
        return self._destinations.of(
            found, facts, ctx.model, lambda experiment: route_facts.subject_in(ctx, experiment)
        )

    async def _learn(self, ctx: RequestContext, need: Need) -> float | None:
        if need is Need.PROMPT_TOKENS:
            return None if ctx.model.tokenizer is None else await counted(ctx, ctx.model.tokenizer)
        return await self._complexity(ctx)

    async def _complexity(self, ctx: RequestContext) -> float | None:
        """Of the first window of the last user turn; None where it has none, or nobody can say."""
        text = route_facts.last_user_text(ctx.request)
        windows = self._encoder.windows(text) if self._encoder is not None else ()
        if self._encoder is None or not windows:
            return None
        start, end = windows[0]
        try:
            (encoding,) = await self._encoder.encode([text[start:end]], self._settings.complexity_deadline_s)
        except DependencyError:
            if self._settings.on_failure is FailureMode.CLOSED:
                raise
            ctx.degraded.add(self.name)
            self._metrics.dependency_failed(self.name, _ENCODER)
            return None
        return encoding.complexity
