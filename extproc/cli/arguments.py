"""Arguments and failures that several commands share. Must not know: any one command."""

import argparse
import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.config.model import GatewayConfig

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CONFIG = pathlib.Path("envoy/gateway.yaml")
_HIGHEST_BASE = 65535 - 22


class CommandFailed(Exception):
    """A command can't do what it was asked; the message is for whoever typed it."""


def refuse_two_runtimes() -> None:
    """Raises CommandFailed where `cpu` and `gpu` are both installed."""
    from extproc.inference import distribution

    problem = distribution.conflict()
    if problem is not None:
        raise CommandFailed(problem)


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("-c", "--config"),
        type=pathlib.Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help="the gateway's configuration (default: %(default)s)",
    )


def add_stack_place(parser: argparse.ArgumentParser) -> None:
    """`--port-base` and `--run-dir`, which together say which local stack is meant."""
    parser.add_argument(
        "--port-base", type=_port_base, metavar="PORT", help="move every port of the local stack to PORT and above"
    )
    parser.add_argument(
        "--run-dir",
        type=pathlib.Path,
        metavar="DIR",
        help="sockets, logs and data of the local stack (default: a directory per port in the user's state directory)",
    )


def load_config(arguments: argparse.Namespace) -> "GatewayConfig":
    """The configuration as the local stack reads it, if one is meant or found; else as this shell does."""
    from extproc import config
    from extproc.policies import pipeline
    from extproc.stack.ports import DOCUMENTED
    from extproc.stack.run_dir import default_run_dir, recorded_environment

    named = arguments.run_dir is not None or arguments.port_base is not None
    environment = dict(os.environ)
    if named or "EXTPROC_KEY_SECRET" not in environment:
        run_dir = arguments.run_dir or default_run_dir(arguments.port_base or DOCUMENTED.gateway)
        recorded = recorded_environment(run_dir)
        if named and not recorded:
            raise CommandFailed(f"there has been no local stack in {run_dir}")
        environment |= recorded
    return config.load(arguments.config, pipeline.SETTINGS, environment)


def _port_base(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= _HIGHEST_BASE:
        raise argparse.ArgumentTypeError(f"a port between 1024 and {_HIGHEST_BASE}")
    return int(text)
