"""The admin API's endpoints about experiments; what they do is in `operations.experiments`. Must not know: aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import UNSET

from extproc.admin import experiment_shapes as shapes
from extproc.admin.endpoints import Call, Endpoint, Input
from extproc.admin.problems import Problem
from extproc.admin.process import Process
from extproc.config.model import GatewayConfig
from extproc.experiments import report, sequential
from extproc.operations import experiments, mirrors
from extproc.operations.trail import ActionTrail

MOST_COMPARED = 100_000
"""Requests in one report: so many are worked out in seconds, in a process that has other things to do."""

BY = "admin-api"
_UNKNOWN = {404: "There is no such experiment."}
_BUSY = "Somebody else has changed it at the same moment, or the weights can't be."


class ExperimentsApi:
    """Weights while running, and reports."""

    def __init__(self, process: Process, base: str) -> None:
        self._process, self._base = process, f"{base}/experiments"
        self._reading = asyncio.Semaphore(1)  # a report reads the whole ledger
        self._computing = ThreadPoolExecutor(1, "report")

    def endpoints(self) -> Sequence[Endpoint]:
        one = f"{self._base}/{{experiment}}"
        return (
            Endpoint(
                method="GET",
                path=self._base,
                name="listExperiments",
                summary="Experiments, their weights in force and their guardrails.",
                takes=Input,
                gives=shapes.Experiments,
                handle=self.list,
            ),
            Endpoint(
                method="POST",
                path=f"{one}/weights",
                name="setWeights",
                summary="Change an experiment's weights, everywhere, until gateway.yaml describes it anew.",
                takes=shapes.NewWeights,
                gives=shapes.Experiment,
                handle=self.set_weights,
                refusals={**_UNKNOWN, 409: _BUSY},
            ),
            Endpoint(
                method="DELETE",
                path=f"{one}/weights",
                name="clearWeights",
                summary="Go back to the weights in gateway.yaml; puts back what a guardrail took out.",
                takes=shapes.OneExperiment,
                gives=shapes.Experiment,
                handle=self.clear,
                refusals={**_UNKNOWN, 409: "Somebody else has changed it at the same moment."},
            ),
            Endpoint(
                method="GET",
                path=f"{one}/report",
                name="readReport",
                summary="Compare an experiment's arms; one at a time.",
                takes=shapes.WhichReport,
                gives=shapes.Report,
                handle=self.report,
                refusals={**_UNKNOWN, 409: f"More than {MOST_COMPARED} requests, or a record that can't be read."},
            ),
        )

    async def list(self, call: Call[Input]) -> shapes.Experiments:
        config = self._process.config()
        return shapes.Experiments(experiments=tuple(_shown(config, one) for one in await experiments.every(config)))

    async def set_weights(self, call: Call[shapes.NewWeights]) -> shapes.Experiment:
        asked, config = call.input, self._process.config()
        with _told():
            trail = ActionTrail(config, call.actor)
            return _shown(config, await experiments.set_weights(config, trail, asked.experiment, asked.weights, BY))

    async def clear(self, call: Call[shapes.OneExperiment]) -> shapes.Experiment:
        config = self._process.config()
        trail = ActionTrail(config, call.actor)
        with _told():
            return _shown(config, await experiments.clear(config, trail, call.input.experiment))

    async def report(self, call: Call[shapes.WhichReport]) -> shapes.Report:
        asked, config = call.input, self._process.config()
        async with self._reading:
            with _told():
                found = await experiments.report(
                    config,
                    asked.experiment,
                    since_s=None if asked.since is UNSET else asked.since,
                    until_s=None if asked.until is UNSET else asked.until,
                    unit=asked.unit,
                    alpha=asked.alpha,
                    most=MOST_COMPARED,
                    computing=self._computing,
                )
        return shapes.Report(
            experiment=_shown(config, found.now),
            since=found.since_s,
            alpha=asked.alpha,
            unit=asked.unit,
            arms=tuple(map(_arm, found.arms)),
            mirror=None if found.mirror is None else _mirror(found.mirror),
        )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What stood in the way, as a problem."""
    try:
        yield
    except experiments.UnknownExperiment as error:
        raise Problem(404, "no_such_experiment", str(error), "experiment") from None
    except experiments.Impossible as error:
        raise Problem(409, "impossible_weights", str(error), "weights") from None
    except experiments.ChangedMeanwhile as error:
        raise Problem(409, "changed_meanwhile", str(error)) from None
    except experiments.TooMany as error:
        raise Problem(409, "too_many_requests", str(error), "since") from None
    except experiments.UnreadableRecord as error:
        raise Problem(409, "unreadable_record", str(error)) from None


def _shown(config: GatewayConfig, now: experiments.InForce) -> shapes.Experiment:
    settings = config.experiments[now.experiment.name]
    total = sum(now.weights.values())
    return shapes.Experiment(
        name=now.experiment.name,
        control=settings.control,
        sticky=str(settings.sticky),
        by=now.by,
        outdated=now.outdated or None,
        arms=tuple(
            shapes.ArmInForce(
                name=name,
                pool=arm.pool,
                model=arm.model,
                weight=now.weights[name],
                share=now.weights[name] / total,
                taken_out=now.pulled.get(name),
            )
            for name, arm in settings.arms.items()
        ),
        guardrails=tuple(
            shapes.Guardrail(
                metric=str(one.metric),
                above=one.above,
                worse_by=one.worse_by,
                min_requests=one.min_requests,
                alpha=one.alpha,
            )
            for one in settings.guardrails
        ),
    )


def _arm(one: report.ArmReport) -> shapes.Arm:
    return shapes.Arm(
        name=one.name,
        requests=one.requests,
        by_testers=one.by_testers,
        subjects=one.subjects,
        prompt_tokens=one.prompt_tokens,
        completion_tokens=one.completion_tokens,
        cost=one.cost,
        metrics={name: _metric(measured) for name, measured in one.metrics.items()},
    )


def _mirror(one: mirrors.Mirror) -> shapes.Mirror:
    copies = one.copies
    if copies is None:
        return shapes.Mirror(pool=one.pool, copies=None)
    ended = shapes.Copies(
        ended=copies.ended, sent=copies.sent, failed=copies.failed, latency_ms=dict(copies.latency_ms)
    )
    return shapes.Mirror(pool=one.pool, copies=ended)


def _metric(one: report.Measured) -> shapes.Metric:
    between = one.difference_interval
    return shapes.Metric(
        observations=one.observations,
        value=one.value,
        interval=_interval(one.interval),
        difference=one.difference,
        difference_interval=None if between is None else _interval(between),
        p=one.p,
    )


def _interval(one: sequential.Interval) -> shapes.Interval:
    low, high = (bound if math.isfinite(bound) else None for bound in (one.low, one.high))
    return shapes.Interval(low=low, high=high)
