"""Where a request goes, and why: its model's own pool, or what a rule and an experiment say.

Must not know: the request's form, or how anything is asked for while running.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from extproc.config.rules import Target
from extproc.operation import Operation
from extproc.routing.catalog import Cascade, Catalog, Model, Pool
from extproc.routing.experiments import Changes, Experiment
from extproc.routing.rules import CompiledRule, Facts

DEFAULT = "default"
"""The rule of requests that meet none."""

_GENERATING = frozenset({Operation.CHAT, Operation.COMPLETIONS})


class ArmTaken(Struct, frozen=True):
    """One arm of one experiment. `subject`: the pseudonym of whom it was drawn for; empty: a tester chose it, so it is
    part of no comparison."""

    experiment: str
    arm: str
    subject: str

    @property
    def label(self) -> str:
        """As headers, metadata and the ledger name it. No name has a slash."""
        return f"{self.experiment}/{self.arm}"


class Destination(Struct, frozen=True):
    """A model and the pool that serves it. `rule`: who said so."""

    rule: str
    model: Model
    pool: Pool
    taken: ArmTaken | None = None
    is_mirrored: bool = False
    """The experiment's mirror gets a copy of the request."""
    cascade: Cascade | None = None
    """What is tried before that."""


class Destinations:
    """The destinations of one configuration."""

    def __init__(self, catalog: Catalog, changes: Changes) -> None:
        self._catalog = catalog
        self._changes = changes

    def serves(self, target: Target, facts: Facts) -> bool:
        """Whether a request can go there; to an experiment, whether any of its arms can take it."""
        if target.experiment is not None:
            arms = self._catalog.experiments[target.experiment].arms.values()
            return all(self.serves(arm.to, facts) for arm in arms)
        if target.model is not None:
            model = self._catalog.served(target.model, facts.reachable)
            return model is not None and facts.operation in model.config.operations
        if target.cascade is not None:
            return self._can_try(self._catalog.cascades[target.cascade].first, facts)
        assert target.pool is not None, "a target has one of the four"
        if facts.reachable is not None and target.pool not in facts.reachable:
            return False
        return self._catalog.models[facts.model].can_use(self._catalog.pools[target.pool], facts.operation)

    def _can_try(self, first: Model, facts: Facts) -> bool:
        asked = self._catalog.models[facts.model]
        if first.name == asked.name or first.pool.name == asked.pool.name:
            return False
        reachable = facts.reachable is None or first.pool.name in facts.reachable
        return reachable and facts.operation in _GENERATING and facts.operation in first.config.operations

    def of(
        self, rule: CompiledRule | None, facts: Facts, asked: Model, subject: Callable[[Experiment], str]
    ) -> Destination:
        """Where a request for the model `asked` goes that meets `rule`, whose target serves it. `subject` says whom an
        experiment draws for."""
        if rule is None:
            return Destination(DEFAULT, asked, asked.pool)
        if rule.to.cascade is not None:
            return Destination(rule.name, asked, asked.pool, cascade=self._catalog.cascades[rule.to.cascade])
        if rule.to.experiment is None:
            return Destination(rule.name, *self._resolved(rule.to, facts, asked))
        experiment = self._catalog.experiments[rule.to.experiment]
        taken = self._arm(experiment, facts, subject)
        model, pool = self._resolved(experiment.arms[taken.arm].to, facts, asked)
        copied = experiment.is_mirrored(facts.headers.get("x-request-id", ""))
        return Destination(rule.name, model, pool, taken, copied)

    def _resolved(self, target: Target, facts: Facts, asked: Model) -> tuple[Model, Pool]:
        if target.model is not None:
            model = self._catalog.served(target.model, facts.reachable)
            assert model is not None, "the target serves it"
            return model, model.pool
        assert target.pool is not None, "an experiment's arms are models or pools"
        return asked, self._catalog.pools[target.pool]

    def _arm(self, experiment: Experiment, facts: Facts, subject: Callable[[Experiment], str]) -> ArmTaken:
        chosen = experiment.chosen_by_tester(facts.principal, facts.team, facts.headers)
        if chosen is not None:
            return ArmTaken(experiment.name, chosen, "")
        weights = experiment.in_force(self._changes.of(experiment.name), facts.now_s)
        whom = subject(experiment)
        return ArmTaken(experiment.name, experiment.assign(whom, weights), experiment.pseudonym(whom))
