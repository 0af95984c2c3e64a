"""Experiments while they run: which weights are in force, other ones, and what the arms show so far.

Every function raises StoreUnavailable or StoreTimeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor

from msgspec import Struct

from extproc.audit.record import Action
from extproc.config.model import GatewayConfig
from extproc.experiments.report import ArmReport, Observations, Unit
from extproc.operations import usage
from extproc.operations.mirrors import Mirror, mirror_of
from extproc.operations.trail import ActionTrail
from extproc.routing.experiments import Change, Experiment, experiment_of
from extproc.stores.experiments import ExperimentStore

TIMEOUT_S = 5.0
"""A person waits longer than a request does."""

GATEWAY_FILE = "gateway.yaml"


class UnknownExperiment(Exception):
    """There is none of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no experiment {name} (there are: {', '.join(known) or 'none'})")


class Impossible(Exception):
    """Weights that can't be: of an arm that there is not, or such that nothing would be served."""


class ChangedMeanwhile(Exception):
    """Somebody else was faster; nothing was done."""

    def __init__(self) -> None:
        super().__init__("somebody else has just changed it; look at it, and try again")


class UnreadableRecord(Exception):
    """A record in the ledger is not as this version writes them."""


class TooMany(Exception):
    """More requests than may be compared at once."""


class InForce(Struct, frozen=True):
    """An experiment's weights. `by`: whose word they are. `pulled`: arms that a guardrail took out, and why.

    `outdated`: whose word they were until gateway.yaml described the experiment anew; empty where there is no such.
    """

    experiment: Experiment
    weights: Mapping[str, float]
    by: str
    pulled: Mapping[str, str]
    outdated: str = ""


class Report(Struct, frozen=True):
    """What the arms show of requests from `since_s` (Unix seconds) on, and what Envoy counted of the
    mirror since it started; None: there is no mirror."""

    arms: Sequence[ArmReport]
    since_s: float
    now: InForce
    mirror: Mirror | None


def named(config: GatewayConfig, name: str) -> Experiment:
    """The experiment of this name. Raises UnknownExperiment."""
    if name not in config.experiments:
        raise UnknownExperiment(name, tuple(config.experiments))
    return experiment_of(name, config.experiments[name])


async def every(config: GatewayConfig) -> list[InForce]:
    """All that gateway.yaml has."""
    async with _store(config) as store:
        changes = await store.changes()
    return [_in_force(experiment_of(name, own), changes.get(name)) for name, own in config.experiments.items()]


async def look(config: GatewayConfig, name: str) -> InForce:
    """One of them. Raises UnknownExperiment."""
    experiment = named(config, name)
    async with _store(config) as store:
        return _in_force(experiment, (await store.changes()).get(name))


async def set_weights(
    config: GatewayConfig, trail: ActionTrail, name: str, asked: Mapping[str, float], by: str
) -> InForce:
    """Other weights, everywhere within a second or so; arms that are not named keep theirs.

    Raises UnknownExperiment, Impossible, ChangedMeanwhile, NotRecorded.
    """
    experiment = named(config, name)
    unknown = [arm for arm in asked if arm not in experiment.arms]
    if unknown:
        raise Impossible(f"no such arm: {', '.join(unknown)} (there are: {', '.join(experiment.arms)})")
    await trail.ready()
    async with _store(config) as store:
        now_s = time.time()
        before = (await store.changes()).get(name)
        weights = {**experiment.in_force(before, now_s), **asked}
        if not any(weights.values()):
            raise Impossible("every weight would be 0, so nothing would be served")
        after = Change(experiment.fingerprint, weights, by, now_s, now_s)
        if not await store.change(name, before, after):
            raise ChangedMeanwhile
    await trail.note(Action.WEIGHTS_SET, _said(name, weights))
    return _in_force(experiment, after)


async def clear(config: GatewayConfig, trail: ActionTrail, name: str) -> InForce:
    """Back to the weights in gateway.yaml. Raises UnknownExperiment, ChangedMeanwhile, NotRecorded."""
    experiment = named(config, name)
    await trail.ready()
    async with _store(config) as store:
        before = (await store.changes()).get(name)
        if before is not None and not await store.change(name, before, None):
            raise ChangedMeanwhile
    await trail.note(Action.WEIGHTS_SET, f"{name} {GATEWAY_FILE}")
    return _in_force(experiment, None)


def _said(name: str, weights: Mapping[str, float]) -> str:
    return " ".join([name, *(f"{arm}={weight:g}" for arm, weight in weights.items())])


async def report(
    config: GatewayConfig,
    name: str,
    *,
    since_s: float | None = None,
    until_s: float | None = None,
    unit: Unit = Unit.SUBJECT,
    alpha: float = 0.05,
    most: float = math.inf,
    computing: Executor | None = None,
) -> Report:
    """Compare the arms, by default since the experiment is as it is; `computing` is where that is worked out.

    Raises UnknownExperiment, UnreadableRecord, TooMany for more than `most` requests.
    """
    experiment = named(config, name)
    async with _store(config) as store:
        said = (await store.changes()).get(name)
        now = _in_force(experiment, said)
        if since_s is None and said is not None and said.fingerprint == experiment.fingerprint:
            since_s = said.since_s
        elif since_s is None:
            since_s = await store.began(name, experiment.fingerprint)
    observed = await _observed(config, experiment, since_s, math.inf if until_s is None else until_s, most)
    control = config.experiments[name].control
    loop = asyncio.get_running_loop()
    arms = await loop.run_in_executor(computing, observed.report, control, unit, alpha)
    return Report(arms, since_s, now, await mirror_of(config, name))


async def _observed(
    config: GatewayConfig, experiment: Experiment, since_s: float, until_s: float, most: float
) -> Observations:
    observed = Observations(experiment.name, experiment.arms, since_s, until_s)
    async with usage.opened(config) as ledger:
        async for page in ledger.pages(since_s):
            for record in page:
                try:
                    observed.add(record)
                except (ValueError, TypeError, KeyError) as error:
                    raise UnreadableRecord(f"the record {record.get('id')} can't be read: {error}") from None
            if observed.size > most:
                raise TooMany(f"more than {most:.0f} requests; say from when on (since)")
    return observed


def _in_force(experiment: Experiment, change: Change | None) -> InForce:
    weights = experiment.in_force(change, time.time())
    if change is None or change.fingerprint != experiment.fingerprint:
        return InForce(experiment, weights, GATEWAY_FILE, {}, "" if change is None else change.by)
    return InForce(experiment, weights, change.by, change.pulled)


@contextlib.asynccontextmanager
async def _store(config: GatewayConfig) -> AsyncIterator[ExperimentStore]:
    store = ExperimentStore(config.redis.url.get_secret_value(), TIMEOUT_S)
    try:
        yield store
    finally:
        await store.close()
