"""`extproc ab`: an experiment's weights while it runs, and what it shows."""

import argparse
import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config
from extproc.cli.audit import AdminTrail

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.config.model import GatewayConfig
    from extproc.routing.experiments import Change, Experiment
    from extproc.stores.experiments import ExperimentStore

_TIMEOUT_S = 5.0
"""A person waits longer than a request does."""
_BY = "ab set"
T = TypeVar("T")


def add_commands(commands: "Commands") -> None:
    ab = commands.add_parser("ab", help="see what experiments show, and change their weights while they run")
    actions = ab.add_subparsers(title="commands", metavar="COMMAND", required=True)

    weights = actions.add_parser("set", help="change weights, at once and everywhere, until gateway.yaml says others")
    weights.add_argument("experiment", metavar="EXPERIMENT")
    weights.add_argument("weights", nargs="+", type=_weight, metavar="ARM=WEIGHT", help="others keep what they have")
    weights.set_defaults(run=_set)

    clear = actions.add_parser("clear", help="go back to the weights in gateway.yaml")
    clear.set_defaults(run=_clear)

    show = actions.add_parser("show", help="the weights in force, and who set them")
    show.set_defaults(run=_show)

    report = actions.add_parser("report", help="compare the arms; it may be asked for as often as one likes")
    report.add_argument("--alpha", type=_alpha, default=0.05, help="chance of ever being wrong (default: %(default)s)")
    report.add_argument(
        "--unit",
        choices=("subject", "request"),
        default="subject",
        help="what one observation is: a subject's first request, or every request, as if they were independent "
        "(default: %(default)s)",
    )
    report.add_argument("--json", action="store_true", help="as JSON")
    report.set_defaults(run=functools.partial(_report, report))

    for action in (weights, clear, show, report):
        if action is not weights:
            action.add_argument("experiment", metavar="EXPERIMENT")
        add_config(action)
        add_stack_place(action)
    _add_times(report)


def _add_times(report: argparse.ArgumentParser) -> None:
    from extproc.cli.usage import moment

    report.add_argument(
        "--since", type=moment, metavar="WHEN", help="2026-01-31, 2026-01-31T12:00 (UTC), or 7d ago; by default since "
        "the experiment is as it is: its last `ab set`, or its description in gateway.yaml",
    )  # fmt: skip
    report.add_argument("--until", type=moment, metavar="WHEN", help="likewise; what arrived then is not included")


def _weight(text: str) -> tuple[str, float]:
    arm, _, weight = text.partition("=")
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not arm or not 0 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"not {text!r}, but an arm and its weight: treatment=20")
    return arm, value


def _alpha(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("a number between 0 and 1")
    return value


def experiment_in(config: "GatewayConfig", name: str) -> "Experiment":
    """The experiment of this name. Raises CommandFailed."""
    from extproc.routing.experiments import experiment_of

    if name not in config.experiments:
        there = ", ".join(config.experiments) or "none"
        raise CommandFailed(f"there is no experiment {name} (there are: {there})")
    return experiment_of(name, config.experiments[name])


def _set(arguments: argparse.Namespace) -> int:
    from extproc.audit.record import Action
    from extproc.routing.experiments import Change

    config = load_config(arguments)
    experiment = experiment_in(config, arguments.experiment)
    asked = dict(arguments.weights)
    unknown = [arm for arm in asked if arm not in experiment.arms]
    if unknown:
        raise CommandFailed(f"no such arm: {', '.join(unknown)} (there are: {', '.join(experiment.arms)})")
    trail = AdminTrail(config)

    async def change(store: "ExperimentStore") -> int:
        now_s = time.time()
        before = (await store.changes()).get(experiment.name)
        weights = {**experiment.in_force(before, now_s), **asked}
        if not any(weights.values()):
            raise CommandFailed("every weight would be 0, so nothing would be served")
        after = Change(experiment.fingerprint, weights, _BY, now_s, now_s)
        if not await store.change(experiment.name, before, after):
            raise CommandFailed("somebody else has just changed it; look at it, and try again")
        trail.record(Action.WEIGHTS_SET, experiment.name, "")
        _print_weights(experiment, after, now_s)
        return 0

    return _with_store(config, change)


def _clear(arguments: argparse.Namespace) -> int:
    from extproc.audit.record import Action

    config = load_config(arguments)
    experiment = experiment_in(config, arguments.experiment)
    trail = AdminTrail(config)

    async def clear(store: "ExperimentStore") -> int:
        before = (await store.changes()).get(experiment.name)
        if before is not None and not await store.change(experiment.name, before, None):
            raise CommandFailed("somebody else has just changed it; look at it, and try again")
        trail.record(Action.WEIGHTS_SET, experiment.name, "")
        _print_weights(experiment, None, time.time())
        return 0

    return _with_store(config, clear)


def _show(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    experiment = experiment_in(config, arguments.experiment)

    async def show(store: "ExperimentStore") -> int:
        _print_weights(experiment, (await store.changes()).get(experiment.name), time.time())
        return 0

    return _with_store(config, show)


def _print_weights(experiment: "Experiment", change: "Change | None", now_s: float) -> None:
    weights = experiment.in_force(change, now_s)
    holds = change is not None and change.fingerprint == experiment.fingerprint
    by = change.by if change is not None and holds else "gateway.yaml"
    total = sum(weights.values())
    for arm, weight in weights.items():
        pulled = change.pulled.get(arm) if change is not None and holds else None
        print(f"{arm}  {weight:g}  {weight / total:.1%}  {by}" + (f"  taken out: {pulled}" if pulled else ""))
    if change is not None and not holds:
        print(f"gateway.yaml describes it anew, so what `{change.by}` said no longer holds")


def _report(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.since is not None and arguments.until is not None and arguments.since >= arguments.until:
        parser.error("--since has to be before --until")
    return asyncio.run(_observe(arguments))


async def _observe(arguments: argparse.Namespace) -> int:
    from extproc.cli.ab_output import show
    from extproc.experiments.report import Observations, Unit
    from extproc.stores.experiments import ExperimentStore
    from extproc.stores.ledger import Ledger, Retention

    config = load_config(arguments)
    experiment = experiment_in(config, arguments.experiment)
    settings = config.experiments[experiment.name]
    url = config.redis.url.get_secret_value()
    store = ExperimentStore(url, _TIMEOUT_S)
    ledger = Ledger(url, _TIMEOUT_S, Retention(config.ledger.max_age_days, config.ledger.max_records))
    try:
        said = (await store.changes()).get(experiment.name)
        change = said if said is not None and said.fingerprint == experiment.fingerprint else None
        since_s = arguments.since
        if since_s is None and change is not None:
            since_s = change.since_s
        elif since_s is None:
            since_s = await store.began(experiment.name, experiment.fingerprint)
        until_s = math.inf if arguments.until is None else arguments.until
        observed = Observations(experiment.name, experiment.arms, since_s, until_s)
        async for page in ledger.pages(since_s):
            for record in page:
                try:
                    observed.add(record)
                except ValueError as error:
                    raise CommandFailed(f"the record {record.get('id')} can't be read: {error}") from None
    finally:
        await store.close()
        await ledger.close()
    arms = observed.report(settings.control, Unit(arguments.unit), arguments.alpha)
    pulled = {} if change is None else change.pulled
    weights = experiment.in_force(change, time.time())
    show(experiment.name, arms, weights, pulled, arguments.alpha, arguments.unit, as_json=arguments.json)
    return 0


def _with_store(config: "GatewayConfig", work: "Callable[[ExperimentStore], Awaitable[T]]") -> T:
    from extproc.stores.experiments import ExperimentStore

    async def run() -> T:
        store = ExperimentStore(config.redis.url.get_secret_value(), _TIMEOUT_S)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())
