"""`extproc audit verify`: is the audit log as it was written?"""

import argparse
import asyncio
import os
import pwd
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config

if TYPE_CHECKING:
    from extproc.audit.files import ChainFiles
    from extproc.audit.record import Action
    from extproc.cli.arguments import Commands
    from extproc.config.model import GatewayConfig
    from extproc.operations.trail import ActionTrail
    from extproc.stores.audit_anchors import AuditAnchors

_TIMEOUT_S = 5.0


def add_commands(commands: "Commands") -> None:
    audit = commands.add_parser("audit", help="verify the audit log")
    actions = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)
    verify = actions.add_parser(
        "verify", help="find any record that was changed, removed, put in or moved; exit code 1 if there is one"
    )
    verify.add_argument(
        "dir", nargs="?", type=Path, metavar="DIR", help="the log's directory (default: as the configuration says)"
    )
    verify.add_argument("--no-redis", action="store_true", help="do without the anchors that are kept in Redis")
    verify.set_defaults(run=_verify)
    add_config(verify)
    add_stack_place(verify)


class AdminTrail:
    """Records of what is done at this command line; nothing without an audit log. Make it before anything is done."""

    def __init__(self, config: "GatewayConfig") -> None:
        """Raises CommandFailed if records can't be written: what can't be recorded isn't done."""
        from extproc.operations.trail import NotRecorded

        self._actions = actions_of(config)
        try:
            self._actions.rehearse()
        except NotRecorded as error:
            raise CommandFailed(str(error)) from error

    def record(self, action: "Action", subject: str, team: str) -> None:
        """Raises CommandFailed."""
        from extproc.operations.trail import NotRecorded

        try:
            self._actions.record(action, subject, team)
        except NotRecorded as error:
            raise CommandFailed(str(error)) from error


def actions_of(config: "GatewayConfig") -> "ActionTrail":
    """Where what this user does is recorded."""
    from extproc.operations.trail import ActionTrail

    return ActionTrail(config, _who())


def _who() -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _verify(arguments: argparse.Namespace) -> int:
    from extproc.audit.files import ChainFiles, Rotation
    from extproc.audit.verify import Broken, verify
    from extproc.stores.audit_anchors import AuditAnchors

    config = load_config(arguments)
    directory: Path | None = arguments.dir or config.audit.dir
    if directory is None:
        raise CommandFailed("the configuration has no audit log: give DIR, and audit.secret")
    try:
        key = config.audit.key
    except ValueError as error:
        raise CommandFailed(f"audit: {error}") from None
    files = ChainFiles(directory.absolute(), key, Rotation())
    try:
        anchors: Mapping[int, str] = {}
        if not arguments.no_redis:
            anchors = asyncio.run(_anchors(files, AuditAnchors(config.redis.url.get_secret_value(), _TIMEOUT_S)))
        found = verify(directory, key, anchors)
    except (Broken, OSError) as error:
        raise CommandFailed(f"the audit log is broken: {error}") from None
    checked = "not checked against Redis" if arguments.no_redis else f"{found.anchors} anchors in Redis agree"
    print(f"{directory}: records {found.first} to {found.last} of chain {found.chain} are as written; {checked}")
    return 0


async def _anchors(files: "ChainFiles", store: "AuditAnchors") -> Mapping[int, str]:
    from extproc.stores.audit_feed import place_of

    try:
        head = files.head()
        others = await store.chains_at(place_of(files)) - {head.chain if head is not None else ""}
        if others:
            raise CommandFailed(f"the audit log is broken: chain {min(others)} was kept here and is gone")
        return {} if head is None else await store.of_chain(head.chain)
    finally:
        await store.close()
