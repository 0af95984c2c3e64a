"""`extproc cache`: what the caches keep, and being rid of it."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.stores.answer_census import AnswerCensus, Held, Which

_TIMEOUT_S = 5.0
"""A person waits longer than a request does."""

T = TypeVar("T")


def add_commands(commands: "Commands") -> None:
    cache = commands.add_parser("cache", help="see what the caches keep, and purge it")
    actions = cache.add_subparsers(title="commands", metavar="COMMAND", required=True)

    stats = actions.add_parser("stats", help="answers and bytes by tenant, model and namespace")
    stats.add_argument("--json", action="store_true", help="as JSON, one group a line")
    stats.set_defaults(run=_stats)

    purge = actions.add_parser("purge", help="forget answers, at once and everywhere")
    purge.add_argument("--all", action="store_true", help="all of them")
    purge.set_defaults(run=_purge)

    for action in (stats, purge):
        action.add_argument("--tenant", metavar="NAME", help="only this team's (or key's: principal:ID)")
        action.add_argument("--model", metavar="NAME", help="only this model's")
        action.add_argument("--namespace", metavar="NAME", help="only this namespace's; '' is the usual one")
        add_config(action)
        add_stack_place(action)


def _stats(arguments: argparse.Namespace) -> int:
    held = _with_census(arguments, lambda census: census.held(_which(arguments)))
    if arguments.json:
        for (tenant, model, namespace), one in sorted(held.items()):
            group = {"tenant": tenant, "model": model, "namespace": namespace}
            print(json.dumps({**group, "entries": one.entries, "bytes": one.size_bytes}))
    else:
        _print_table(held)
    return 0


def _purge(arguments: argparse.Namespace) -> int:
    which = _which(arguments)
    if (which.tenant, which.model, which.namespace) == (None, None, None) and not arguments.all:
        raise CommandFailed("say what to purge: --tenant, --model, --namespace, or --all")
    gone = _with_census(arguments, lambda census: census.purge(which))
    print(f"{gone} answers forgotten")
    return 0


def _which(arguments: argparse.Namespace) -> "Which":
    from extproc.stores.answer_census import Which

    return Which(arguments.tenant, arguments.model, arguments.namespace)


def _print_table(held: "Mapping[tuple[str, str, str], Held]") -> None:
    rows = [("TENANT", "MODEL", "NAMESPACE", "ENTRIES", "BYTES")]
    rows += [
        (tenant, model, namespace or "-", str(one.entries), str(one.size_bytes))
        for (tenant, model, namespace), one in sorted(held.items())
    ]
    entries, size_bytes = (sum(getattr(one, name) for one in held.values()) for name in ("entries", "size_bytes"))
    rows.append(("total", "", "", str(entries), str(size_bytes)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        print("  ".join(cells).rstrip())


def _with_census(arguments: argparse.Namespace, work: "Callable[[AnswerCensus], Awaitable[T]]") -> T:
    from extproc.stores.answer_census import AnswerCensus

    config = load_config(arguments)

    async def run() -> T:
        census = AnswerCensus(config.redis.url.get_secret_value(), _TIMEOUT_S)
        try:
            return await work(census)
        finally:
            await census.close()

    return asyncio.run(run())
