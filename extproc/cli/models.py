"""`extproc models`: the models that the gateway itself needs, new ones for Triton to serve, and those that are loaded
on demand.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extproc.cli import models_new
from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config
from extproc.cli.audit import actions_of

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.operations.models import OneModel

_PATIENCE_S = 300.0


def add_commands(commands: "Commands") -> None:
    models = commands.add_parser(
        "models", help="build the gateway's own models, make new ones; list, load and unload those of pools"
    )
    actions = models.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = actions.add_parser(
        "build", help="build the ONNX graphs of encoder and verifier; nothing to do the second time"
    )
    build.set_defaults(run=_build)
    models_new.add_command(actions)

    listed = actions.add_parser("list", help="models that are loaded on demand, and what they are doing")
    listed.add_argument("--json", action="store_true", help="as JSON, one model a line")
    listed.set_defaults(run=_list)
    load = actions.add_parser("load", help="load a model now, as a request for it would")
    load.set_defaults(run=_load)
    unload = actions.add_parser("unload", help="unload a model once no request uses it")
    unload.set_defaults(run=_unload)
    for action in (load, unload):
        action.add_argument("model", metavar="MODEL", help="its name on the servers")
        action.add_argument("--mesh", metavar="NAME", help="which model mesh, where several have it")
        action.add_argument(
            "--timeout",
            type=float,
            default=_PATIENCE_S,
            metavar="SECONDS",
            help="wait no longer (default: %(default)g)",
        )
    for action in (listed, load, unload):
        add_config(action)
        add_stack_place(action)


def _build(arguments: argparse.Namespace) -> int:
    from extproc.cli.progress import shown
    from extproc.inference import minilm
    from extproc.inference.verifier import files as verifier
    from extproc.stack.artifact import ArtifactError

    try:
        with shown() as progress:
            result = minilm.build(minilm.default_folder(), progress=progress)
            verified = verifier.build(verifier.default_folder(), progress=progress)
    except ArtifactError as error:
        raise CommandFailed(str(error)) from error
    print(f"{result.model}: {result.outcome.value}")
    print(f"{verifier.default_folder() / verifier.MODEL}: {verified.value}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from extproc.operations import models

    found = asyncio.run(models.every(load_config(arguments)))
    if arguments.json:
        for one in found:
            print(json.dumps(_facts(one)))
    else:
        _print_table(found)
    return 0


def _load(arguments: argparse.Namespace) -> int:
    from extproc.operations import models

    return _done(arguments, models.load, "is loaded")


def _unload(arguments: argparse.Namespace) -> int:
    from extproc.operations import models

    return _done(arguments, models.unload, "is not loaded")


def _done(arguments: argparse.Namespace, operation: Any, text: str) -> int:
    from extproc.operations.models import NotDone, UnknownModel
    from extproc.operations.trail import NotRecorded

    config = load_config(arguments)
    work = operation(config, actions_of(config), arguments.model, arguments.mesh, arguments.timeout)
    try:
        found = asyncio.run(work)
    except (NotDone, UnknownModel, NotRecorded) as error:
        raise CommandFailed(str(error)) from None
    print(f"{found.mesh}/{found.name} {text}")
    return 0


def _facts(one: "OneModel") -> dict[str, Any]:
    row = one.row
    return {
        "mesh": one.mesh,
        "model": one.name,
        "state": row.state or "absent",
        "in_use": row.in_use,
        "waiting": row.waiting,
        "memory_mb": one.settings.memory_mb,
        "keep": one.settings.keep,
        "load_s": row.load_ms / 1000,
        "error": row.error,
    }


def _print_table(found: "Sequence[OneModel]") -> None:
    rows = [("MESH", "MODEL", "STATE", "IN USE", "WAITING", "MEMORY MB", "LOAD S", "")]
    for one in found:
        facts = _facts(one)
        numbers = (
            str(facts["in_use"]),
            str(facts["waiting"]),
            str(facts["memory_mb"] or "-"),
            f"{facts['load_s']:.1f}",
        )
        rows.append((one.mesh, one.name, facts["state"], *numbers, "kept" if facts["keep"] else facts["error"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[3:7], widths[3:7], strict=True)]
        print("  ".join([*left, *right, row[7]]).rstrip())
