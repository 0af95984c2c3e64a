"""`extproc ab`: an experiment's weights while it runs, and what it shows."""

import argparse
import asyncio
import functools
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config
from extproc.cli.audit import actions_of

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.operations.experiments import InForce

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


def _set(arguments: argparse.Namespace) -> int:
    from extproc.operations import experiments

    config = load_config(arguments)
    asked = dict(arguments.weights)
    _print_weights(_done(experiments.set_weights(config, actions_of(config), arguments.experiment, asked, _BY)))
    return 0


def _clear(arguments: argparse.Namespace) -> int:
    from extproc.operations import experiments

    config = load_config(arguments)
    _print_weights(_done(experiments.clear(config, actions_of(config), arguments.experiment)))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from extproc.operations import experiments

    _print_weights(_done(experiments.look(load_config(arguments), arguments.experiment)))
    return 0


def _print_weights(now: "InForce") -> None:
    total = sum(now.weights.values())
    for arm, weight in now.weights.items():
        pulled = now.pulled.get(arm)
        print(f"{arm}  {weight:g}  {weight / total:.1%}  {now.by}" + (f"  taken out: {pulled}" if pulled else ""))
    if now.outdated:
        print(f"gateway.yaml describes it anew, so what `{now.outdated}` said no longer holds")


def _report(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from extproc.cli.ab_output import show
    from extproc.experiments.report import Unit
    from extproc.operations import experiments

    if arguments.since is not None and arguments.until is not None and arguments.since >= arguments.until:
        parser.error("--since has to be before --until")
    observing = experiments.report(
        load_config(arguments),
        arguments.experiment,
        since_s=arguments.since,
        until_s=arguments.until,
        unit=Unit(arguments.unit),
        alpha=arguments.alpha,
    )
    told = _done(observing)
    now = told.now
    show(now.experiment.name, told.arms, now.weights, now.pulled, arguments.alpha, arguments.unit,
         as_json=arguments.json, mirror=told.mirror)  # fmt: skip
    return 0


def _done(work: Coroutine[None, None, T]) -> T:
    """What comes of it. Raises CommandFailed."""
    from extproc.operations.experiments import ChangedMeanwhile, Impossible, UnknownExperiment, UnreadableRecord
    from extproc.operations.trail import NotRecorded

    try:
        return asyncio.run(work)
    except (UnknownExperiment, Impossible, ChangedMeanwhile, UnreadableRecord, NotRecorded) as error:
        raise CommandFailed(str(error)) from None
