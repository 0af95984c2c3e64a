"""A usage summary as a table, CSV or JSON. Must not know: how it was summed up."""

import csv
import json
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from extproc.cli.table import table
from extproc.money import decimal_from_nano
from extproc.usage_summary import Summary, Usage

_COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "saved_tokens")
_LEAST_DECIMALS = 2


def show(summary: Summary, by: Sequence[str], form: str, out: TextIO | None = None) -> None:
    """Write it to `out`, by default standard output. Amounts are exact decimals, one column for each currency."""
    out = sys.stdout if out is None else out
    currencies = sorted(summary.total.cost_nano)
    if form == "json":
        objects = [_object(dict(zip(by, group, strict=True)), usage) for group, usage in summary.groups()]
        json.dump({"groups": objects, "total": _object({}, summary.total)}, out, indent=2)
        out.write("\n")
        return
    header = [*by, *_COUNTS, *(f"cost_{currency}" for currency in currencies)]
    groups = [(group, _cells(usage, currencies)) for group, usage in summary.groups()]
    if form == "csv":
        csv.writer(out, lineterminator="\n").writerows([header, *([*group, *cells] for group, cells in groups)])
        return
    rows = [[*(name or "-" for name in group), *cells] for group, cells in groups]
    if by:
        rows.append(["total", *[""] * (len(by) - 1), *_cells(summary.total, currencies)])
    table([[name.upper() for name in header], *rows], len(by), out)


def _object(group: dict[str, str], usage: Usage) -> dict[str, Any]:
    cost = {currency: _amount(nano) for currency, nano in sorted(usage.cost_nano.items())}
    return {**group, **{name: getattr(usage, name) for name in _COUNTS}, "cost": cost}


def _cells(usage: Usage, currencies: Sequence[str]) -> list[str]:
    amounts = [_amount(usage.cost_nano.get(currency, 0)) for currency in currencies]
    return [*(str(getattr(usage, name)) for name in _COUNTS), *amounts]


def _amount(nano: int) -> str:
    """As people write it: two decimals, and more where there are more."""
    whole, _, decimals = format(decimal_from_nano(nano), "f").partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(_LEAST_DECIMALS, '0')}"
