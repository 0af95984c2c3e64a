"""`extproc models`: the models that the gateway itself needs, and new ones for Triton to serve."""

import argparse
from typing import TYPE_CHECKING

from extproc.cli import models_new
from extproc.cli.arguments import CommandFailed

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands


def add_commands(commands: "Commands") -> None:
    models = commands.add_parser("models", help="the models that the gateway itself needs, and new ones")
    actions = models.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = actions.add_parser(
        "build", help="build the ONNX graphs of encoder and verifier; nothing to do the second time"
    )
    build.set_defaults(run=_build)
    models_new.add_command(actions)


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
