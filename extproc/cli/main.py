"""Where the `extproc` command begins: usage, and what its failures look like. Must not know: what commands do."""

import argparse
import sys
from collections.abc import Sequence

from extproc import __version__
from extproc.cli import ab, audit, cache, config, demo, health, keys, models, route, serve, up, usage
from extproc.cli.arguments import CommandFailed
from extproc.errors import ConfigError, DependencyError

_NEED_EXTRAS = {"envoy": "stack", "onnx": "stack", "rich": "stack", "safetensors": "stack", "onnxruntime": "cpu"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 failed, 2 bad usage."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except ConfigError as error:
        return _fail(str(error))
    except (CommandFailed, DependencyError) as error:
        return _fail(f"extproc: {error}")
    except ModuleNotFoundError as error:
        extra = _NEED_EXTRAS.get(error.name or "")
        if extra is None:
            raise
        return _fail(f"extproc: this command needs more packages: pip install 'extproc[{extra}]'")
    except KeyboardInterrupt:
        return 130
    return code


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="extproc", description="An AI gateway: an Envoy external processor.")
    parser.add_argument("--version", action="version", version=f"extproc {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (up, demo, serve, health, config, keys, models, usage, audit, cache, route, ab):
        group.add_commands(commands)
    return parser
