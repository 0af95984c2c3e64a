"""Where a request goes, and why: its model's own pool, or what a rule and an experiment say.

Must not know: the request's form, or how anything is asked for while running.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from extproc.config.rules import Target
from extproc.operation import Operation
from extproc.routing.catalog import Catalog, Model, Pool
from extproc.routing.experiments import Changes, Experiment
from extproc.routing.rules import CompiledRule, Facts

DEFAULT = "default"
"""The rule of requests that meet none."""


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
    mirror: str = ""
    """The pool that gets a copy of the request."""


class Destinations:
    """The destinations of one configuration."""

    def __init__(self, catalog: Catalog, changes: Changes) -> None:
        self._catalog = catalog
        self._changes = changes

    def serves(self, target: Target, model: str, operation: Operation) -> bool:
        """Whether an operation of a model can go there; to an experiment, whether any of its arms can take it."""
        if target.experiment is not None:
            arms = self._catalog.experiments[target.experiment].arms.values()
            return all(self.serves(arm.to, model, operation) for arm in arms)
        if target.model is not None:
            return operation in self._catalog.models[target.model].config.operations
        assert target.pool is not None, "a target has one of the three"
        return self._catalog.models[model].can_use(self._catalog.pools[target.pool], operation)

    def of(self, rule: CompiledRule | None, facts: Facts, subject: Callable[[Experiment], str]) -> Destination:
        """Where a request goes that meets `rule`. `subject` says whom an experiment draws for."""
        asked = self._catalog.models[facts.model]
        if rule is None:
            return Destination(DEFAULT, asked, asked.pool)
        if rule.to.experiment is None:
            return self._plain(rule.name, rule.to, asked)
        experiment = self._catalog.experiments[rule.to.experiment]
        taken = self._arm(experiment, facts, subject)
        mirror = experiment.mirrored(facts.headers.get("x-request-id", ""))
        return self._plain(rule.name, experiment.arms[taken.arm].to, asked, taken, mirror)

    def _plain(
        self, rule: str, target: Target, asked: Model, taken: ArmTaken | None = None, mirror: str = ""
    ) -> Destination:
        if target.model is not None:
            model = self._catalog.models[target.model]
            return Destination(rule, model, model.pool, taken, mirror)
        assert target.pool is not None, "an experiment's arms are models or pools"
        return Destination(rule, asked, self._catalog.pools[target.pool], taken, mirror)

    def _arm(self, experiment: Experiment, facts: Facts, subject: Callable[[Experiment], str]) -> ArmTaken:
        chosen = experiment.chosen_by_tester(facts.principal, facts.team, facts.headers)
        if chosen is not None:
            return ArmTaken(experiment.name, chosen, "")
        weights = experiment.in_force(self._changes.of(experiment.name), facts.now_s)
        whom = subject(experiment)
        return ArmTaken(experiment.name, experiment.assign(whom, weights), experiment.pseudonym(whom))
