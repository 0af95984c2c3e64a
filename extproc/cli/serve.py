"""`extproc serve`: the external processor itself."""

import argparse
import pathlib
from typing import TYPE_CHECKING

from extproc.cli.arguments import add_config, refuse_two_runtimes

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands


def add_commands(commands: "Commands") -> None:
    serve = commands.add_parser("serve", help="run the external processor that Envoy talks to")
    add_config(serve)
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from extproc.supervisor import serve

    refuse_two_runtimes()
    config: pathlib.Path = arguments.config
    return serve(config)
