"""`extproc usage`: what was used and what it costs, from the ledger or from a log."""

import argparse
import asyncio
import datetime
import functools
import pathlib
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.usage_cascades import Cascades
    from extproc.usage_summary import Summary

    Records = AsyncIterator[Sequence[Mapping[str, Any]]]

_DEFAULT_BY = ("team", "model")
_LOG_PAGE = 500
_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def add_commands(commands: "Commands") -> None:
    usage = commands.add_parser("usage", help="sum up what was used and what it costs")
    usage.add_argument(
        "--by",
        action="append",
        type=_dimensions,
        metavar="NAME",
        help="principal, team, tier, model, operation, pool, day, termination; repeat, or join by commas, for several; "
        f"`total` for one sum (default: {','.join(_DEFAULT_BY)})",
    )
    usage.add_argument(
        "--cascades", action="store_true", help="what cascades kept and escalated, cost and (an estimate) saved"
    )
    usage.add_argument("--since", type=moment, metavar="WHEN", help="2026-01-31, 2026-01-31T12:00 (UTC), or 7d ago")
    usage.add_argument("--until", type=moment, metavar="WHEN", help="likewise; what arrived then is not included")
    usage.add_argument("--format", choices=("table", "csv", "json"), default="table", help="(default: %(default)s)")
    usage.add_argument(
        "--export", type=_sqlite_file, metavar="FILE.sqlite", help="put the records themselves there, each once"
    )
    usage.add_argument(
        "--from-log", metavar="FILE", help="read the usage lines of a log instead of the ledger; - is standard input"
    )
    add_config(usage)
    add_stack_place(usage)
    usage.set_defaults(run=functools.partial(_usage, usage))


def _usage(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.since is not None and arguments.until is not None and arguments.since >= arguments.until:
        parser.error("--since has to be before --until")
    if arguments.cascades and (arguments.by or arguments.export):
        parser.error("--cascades goes with neither --by nor --export")
    return asyncio.run(_report(arguments))


async def _report(arguments: argparse.Namespace) -> int:
    from extproc.cli.usage_output import show
    from extproc.usage_summary import Summary

    names = [name for part in arguments.by or [_DEFAULT_BY] for name in part]
    by = tuple(dict.fromkeys(name for name in names if name != "total"))
    summary = Summary(by, arguments.since, arguments.until)
    records = _from_log(arguments.from_log) if arguments.from_log else _from_ledger(arguments)
    if arguments.export is not None:
        await _export(records, summary, arguments.export)
        return 0
    if arguments.cascades:
        await _cascades(records, summary, arguments)
        return 0
    async for page in records:
        for record in page:
            _add(summary, record)
    show(summary, by, arguments.format)
    return 0


async def _cascades(records: "Records", summary: "Summary", arguments: argparse.Namespace) -> None:
    from extproc.cli.usage_cascades import show
    from extproc.usage_cascades import Cascades

    models = load_config(arguments).models
    cascades = Cascades({name: model.price.exact for name, model in models.items() if model.price is not None})
    async for page in records:
        for record in page:
            if summary.wants(record):
                _add(cascades, record)
    show(cascades, arguments.format)


async def _export(records: "Records", summary: "Summary", path: pathlib.Path) -> None:
    from extproc.cli.usage_export import Export

    with Export(path) as export:
        async for page in records:
            export.add([record for record in page if summary.wants(record)])
    print(f"{export.new} new records in {path}, {export.known} were there already", file=sys.stderr)


def _add(sums: "Summary | Cascades", record: Mapping[str, Any]) -> None:
    try:
        sums.add(record)
    except (ValueError, TypeError, OverflowError) as error:
        raise CommandFailed(f"the record {record.get('id')} can't be read: {error}") from None


async def _from_ledger(arguments: argparse.Namespace) -> "Records":
    from extproc.cli.usage_progress import Progress
    from extproc.operations.usage import opened

    async with opened(load_config(arguments)) as ledger:
        extent = await ledger.extent()
        if extent.trimmed:
            print(f"{extent.trimmed} older records are no longer in the ledger", file=sys.stderr)
        with Progress(extent.records) as progress:
            async for page in ledger.pages(arguments.since):
                yield page
                progress.advance(len(page))


async def _from_log(path: str) -> "Records":
    """The usage lines of a log; other lines, and what is not JSON, are skipped."""
    import orjson

    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as log:  # noqa: ASYNC230 (nothing else runs here)
            page = []
            for line in log:
                if b'"usage"' not in line:
                    continue
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(record, dict) and record.get("message") == "usage":
                    page.append(record)
                if len(page) == _LOG_PAGE:
                    yield page
                    page = []
            yield page
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from None


def _dimensions(text: str) -> tuple[str, ...]:
    from extproc.usage_summary import DIMENSIONS

    names = tuple(text.split(","))
    unknown = [name for name in names if name not in (*DIMENSIONS, "total")]
    if unknown:
        raise argparse.ArgumentTypeError(f"not {unknown[0]!r}, but {', '.join(DIMENSIONS)}, or total")
    return names


def moment(text: str) -> float:
    """Unix seconds of a date, a date and time (of UTC unless it says otherwise), or a time ago."""
    ago = re.fullmatch(r"([0-9]{1,6})([mhdw])( ago)?", text)
    now = datetime.datetime.now(datetime.UTC)
    if ago is not None:
        return now.timestamp() - int(ago[1]) * _UNITS_S[ago[2]]
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a date nor a time ago: {text!r}") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _sqlite_file(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix not in (".sqlite", ".sqlite3", ".db"):
        raise argparse.ArgumentTypeError("a file that ends in .sqlite")
    return path
