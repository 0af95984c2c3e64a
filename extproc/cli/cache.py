"""`extproc cache`: what the caches keep, and being rid of it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config
from extproc.cli.audit import actions_of
from extproc.cli.table import table

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.stores.answer_census import Held, Which


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
    from extproc.operations import cache

    held = asyncio.run(cache.held(load_config(arguments), _which(arguments)))
    if arguments.json:
        for (tenant, model, namespace), one in sorted(held.items()):
            group = {"tenant": tenant, "model": model, "namespace": namespace}
            print(json.dumps({**group, "entries": one.entries, "bytes": one.size_bytes}))
    else:
        _print_table(held)
    return 0


def _purge(arguments: argparse.Namespace) -> int:
    from extproc.operations import cache
    from extproc.operations.trail import NotRecorded

    which = _which(arguments)
    if (which.tenant, which.model, which.namespace) == (None, None, None) and not arguments.all:
        raise CommandFailed("say what to purge: --tenant, --model, --namespace, or --all")
    config = load_config(arguments)
    try:
        gone = asyncio.run(cache.purge(config, actions_of(config), which))
    except NotRecorded as error:
        raise CommandFailed(str(error)) from None
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
    table(rows, 3, sys.stdout)
