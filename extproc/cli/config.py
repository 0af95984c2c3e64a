"""`extproc check`, `schema` and `envoy`: what can be done with a configuration without running anything."""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed, refuse_two_runtimes

if TYPE_CHECKING:
    from extproc import mesh
    from extproc.cli.arguments import Commands


_FORMATS = ("bootstrap", "istio-gateway", "istio-sidecar")


def add_commands(commands: "Commands") -> None:
    check = commands.add_parser("check", help="validate a configuration; errors name the file, the line and the key")
    check.add_argument("file", type=pathlib.Path, metavar="FILE")
    check.set_defaults(run=_check)

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration, for editors")
    schema.set_defaults(run=_schema)

    envoy = commands.add_parser("envoy", help="print the Envoy bootstrap generated from a configuration")
    envoy.add_argument("file", type=pathlib.Path, metavar="FILE")
    envoy.add_argument(
        "--xds-dir",
        type=pathlib.Path,
        metavar="DIR",
        help="write it as files that a running Envoy follows, and print the path of the bootstrap to start it with",
    )
    envoy.add_argument(
        "--format",
        choices=_FORMATS,
        default="bootstrap",
        help="a whole configuration (default), or an Istio EnvoyFilter for a gateway of its own or a server's sidecar",
    )
    envoy.add_argument("--port", type=int, default=None, help="EnvoyFilter: the gateway's or the model server's port")
    envoy.add_argument("--host", default="", help="EnvoyFilter for a gateway: the host name that clients use")
    envoy.add_argument("--name", default="extproc", help="EnvoyFilter: its name (default: %(default)s)")
    envoy.add_argument("--namespace", default="default", help="EnvoyFilter: its namespace (default: %(default)s)")
    envoy.add_argument(
        "--selector",
        action="append",
        default=[],
        type=_label,
        metavar="LABEL=VALUE",
        help="EnvoyFilter: a label of the pods; can be repeated",
    )
    envoy.set_defaults(run=_envoy)


def _check(arguments: argparse.Namespace) -> int:
    from extproc import gateway_file

    refuse_two_runtimes()
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

    loaded = gateway_file.load(arguments.file)
    if arguments.format != _FORMATS[0]:
        if loaded.fallback_address is not None:
            raise CommandFailed(
                "fallback pools, cascades and model meshes need a listener of their own in Envoy, and an EnvoyFilter"
                " adds none: leave them out, or run Envoy as the chart does"
            )
        print(mesh.to_yaml(mesh.envoy_filter(loaded, _target(arguments))), end="")
        return 0
    if arguments.xds_dir is None:
        print(mesh.bootstrap_yaml(loaded), end="")
        return 0
    try:
        print(mesh.write_xds(loaded, arguments.xds_dir))
    except OSError as error:
        raise CommandFailed(f"can't write to {arguments.xds_dir}: {error.strerror}") from error
    return 0


def _target(arguments: argparse.Namespace) -> "mesh.Target":
    from extproc import mesh

    if arguments.port is None or arguments.xds_dir is not None:
        raise CommandFailed("an EnvoyFilter needs --port, and goes without --xds-dir")
    if (arguments.format == mesh.Place.GATEWAY) != bool(arguments.host):
        raise CommandFailed("an EnvoyFilter for a gateway needs --host, one for a sidecar has none")
    return mesh.Target(
        place=mesh.Place(arguments.format),
        port=arguments.port,
        host=arguments.host,
        name=arguments.name,
        namespace=arguments.namespace,
        labels=dict(arguments.selector),
    )


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError("LABEL=VALUE")
    return name, value
