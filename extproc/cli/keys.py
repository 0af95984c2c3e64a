"""`extproc keys`: create, list and revoke API keys in the gateway's Redis."""

import argparse
import asyncio
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config
from extproc.cli.audit import actions_of
from extproc.cli.table import table

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.stores.keys import KeyRecord

_TIERS = ("free", "basic", "pro", "enterprise")


def add_commands(commands: "Commands") -> None:
    keys = commands.add_parser("keys", help="create, list and revoke API keys")
    actions = keys.add_subparsers(title="commands", metavar="COMMAND", required=True)

    create = actions.add_parser("create", help="make a key; its text is printed now and never again")
    create.add_argument("--name", required=True, help="what it is for")
    create.add_argument("--team", default="default", help="whom its use is counted for (default: %(default)s)")
    create.add_argument("--tier", choices=_TIERS, default="free", help="how much it may use (default: %(default)s)")
    create.add_argument(
        "--model", action="append", metavar="NAME", help="a model it may ask for; repeat for more (default: all)"
    )
    create.set_defaults(run=_create)

    listing = actions.add_parser("list", help="show every key, without its text")
    listing.add_argument("--json", action="store_true", help="as JSON, one key a line")
    listing.set_defaults(run=_list)

    revoke = actions.add_parser("revoke", help="end a key at once, everywhere")
    revoke.add_argument("id", metavar="ID", help="as `extproc keys list` shows it")
    revoke.set_defaults(run=_revoke)

    for action in (create, listing, revoke):
        add_config(action)
        add_stack_place(action)


def _create(arguments: argparse.Namespace) -> int:
    from extproc.config.tier import Tier
    from extproc.operations import keys
    from extproc.operations.trail import NotRecorded

    config = load_config(arguments)
    creating = keys.create(
        config,
        actions_of(config),
        name=arguments.name,
        team=arguments.team,
        tier=Tier(arguments.tier),
        models=tuple(arguments.model or (keys.EVERY_MODEL,)),
    )
    try:
        created = asyncio.run(creating)
    except (keys.UnknownModels, NotRecorded) as error:
        raise CommandFailed(str(error)) from None
    # Only the key goes to standard output, so that a script can take it from there.
    print(f"id    {created.record.id}\nhash  {created.record.hash}", file=sys.stderr)
    print(created.text)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    import msgspec

    from extproc.operations import keys

    records = asyncio.run(keys.every(load_config(arguments)))
    if arguments.json:
        for record in records:
            print(msgspec.json.encode(record).decode())
    else:
        _print_table(records)
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    from extproc.operations import keys
    from extproc.operations.trail import NotRecorded

    config = load_config(arguments)
    try:
        record = asyncio.run(keys.revoke(config, actions_of(config), arguments.id))
    except NotRecorded as error:
        raise CommandFailed(str(error)) from None
    if record is None:
        raise CommandFailed(f"there is no key {arguments.id}")
    print(f"{record.id} ({record.name}) is revoked")
    return 0


def _print_table(records: "Iterable[KeyRecord]") -> None:
    rows = [("ID", "NAME", "TEAM", "TIER", "MODELS", "CREATED", "STATE")]
    for record in records:
        state = "revoked" if record.revoked else "active"
        created = record.created.strftime("%Y-%m-%d %H:%M")
        rows.append((record.id, record.name, record.team, record.tier, ",".join(record.models), created, state))
    table(rows, len(rows[0]), sys.stdout)
