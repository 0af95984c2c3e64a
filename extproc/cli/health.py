"""`extproc health`: whether the service beside takes requests, for a container's health check."""

import argparse
import http.client
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands

_TIMEOUT_S = 3.0


def add_commands(commands: "Commands") -> None:
    health = commands.add_parser("health", help="ask a running service whether it takes requests; exit code 0 if so")
    health.add_argument(
        "--admin",
        type=_host_port,
        default=("127.0.0.1", 9002),
        metavar="HOST:PORT",
        help="its `service.admin` (default: 127.0.0.1:9002)",
    )
    health.set_defaults(run=_health)


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError("HOST:PORT")
    return host, int(port)


def _health(arguments: argparse.Namespace) -> int:
    # Not the configuration's: reading it takes longer than asking, and secrets that a probe need not have.
    host, port = arguments.admin
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise CommandFailed(f"no answer: {error}") from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise CommandFailed(f"not ready: {status}")
    print("ready")
    return 0
