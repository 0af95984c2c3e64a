"""What cascades did, as a table, CSV or JSON. Must not know: how it was summed up."""

import csv
import json
import sys
from typing import Any, TextIO

from extproc.cli.table import table
from extproc.cli.usage_output import amount
from extproc.usage_cascades import Cascades, CascadeUse

_NAMES = ("cascade", "model")
_COLUMNS = ("requests", "kept", "escalated", "why", "currency", "spent", "large_alone", "saved")
_NOTE = "large_alone is an estimate: what was kept, at the price of the model that was asked for, for the same tokens"


def show(cascades: Cascades, form: str, out: TextIO | None = None) -> None:
    """Write it to `out`, by default standard output. Amounts are exact decimals, the estimate is one."""
    out = sys.stdout if out is None else out
    uses = cascades.uses()
    if form == "json":
        json.dump({"cascades": [_object(*named, use) for named, use in uses], "note": _NOTE}, out, indent=2)
        out.write("\n")
        return
    rows = [[name, model, *_cells(use, currency)] for (name, model, currency), use in uses]
    if form == "csv":
        csv.writer(out, lineterminator="\n").writerows([[*_NAMES, *_COLUMNS], *rows])
        return
    table([[name.upper() for name in (*_NAMES, *_COLUMNS)], *rows], len(_NAMES), out)
    out.write(f"{_NOTE}\n")


def _cells(use: CascadeUse, currency: str) -> list[str]:
    why = " ".join(f"{reason}:{_percent(count, use.requests)}" for reason, count in sorted(use.escalated.items()))
    escalated = use.escalated.total()
    shares = [f"{count} ({_percent(count, use.requests)})" for count in (use.kept, escalated)]
    spent, large, saved = map(_signed, (use.cost_nano, use.large_nano, use.saved_nano))
    return [str(use.requests), *shares, why or "-", currency or "-", spent, large, saved]


def _object(name: str, model: str, currency: str, use: CascadeUse) -> dict[str, Any]:
    return {
        "cascade": name,
        "model": model,
        "requests": use.requests,
        "kept": use.kept,
        "escalated": dict(sorted(use.escalated.items())),
        "currency": currency,
        "spent": _signed(use.cost_nano),
        "spent_on_tries": _signed(use.tried_nano),
        "large_alone_estimate": _signed(use.large_nano),
        "saved_estimate": _signed(use.saved_nano),
    }


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f}%"


def _signed(nano: int) -> str:
    return f"-{amount(-nano)}" if nano < 0 else amount(nano)
