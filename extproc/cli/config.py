"""`extproc check`, `schema` and `envoy`: what can be done with a configuration without running anything."""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands


def add_commands(commands: "Commands") -> None:
    check = commands.add_parser("check", help="validate a configuration; errors name the file, the line and the key")
    check.add_argument("file", type=pathlib.Path, metavar="FILE")
    check.set_defaults(run=_check)

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration, for editors")
    schema.set_defaults(run=_schema)

    envoy = commands.add_parser("envoy", help="print the Envoy bootstrap generated from a configuration")
    envoy.add_argument("file", type=pathlib.Path, metavar="FILE")
    envoy.set_defaults(run=_envoy)


def _check(arguments: argparse.Namespace) -> int:
    from extproc import gateway_file

    loaded = gateway_file.load(arguments.file)
    print(f"{arguments.file}: valid, version {loaded.version}")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from extproc import config
    from extproc.policies import pipeline

    print(json.dumps(config.json_schema(pipeline.SETTINGS), indent=2))
    return 0


def _envoy(arguments: argparse.Namespace) -> int:
    from extproc import gateway_file, mesh

    print(mesh.bootstrap_yaml(gateway_file.load(arguments.file)), end="")
    return 0
