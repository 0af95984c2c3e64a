"""An experiment's report as a table or as JSON. Must not know: how it was worked out."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import msgspec

from extproc.cli.table import table
from extproc.experiments.report import ArmReport, Measured
from extproc.operations.mirrors import Copies, Mirror

_HEADER = ("METRIC", "ARM", "N", "VALUE", "INTERVAL", "DIFFERENCE", "INTERVAL", "P")
_TEXT_COLUMNS = 2


def show(
    experiment: str,
    arms: Sequence[ArmReport],
    weights: Mapping[str, float],
    pulled: Mapping[str, str],
    alpha: float,
    unit: str,
    *,
    as_json: bool,
    mirror: Mirror | None = None,
    out: TextIO | None = None,
) -> None:
    """Write it to `out`, by default standard output."""
    out = sys.stdout if out is None else out
    if as_json:
        described = [
            {
                **_finite(msgspec.to_builtins(arm)),
                "weight": weights.get(arm.name, 0.0),
                "taken_out": pulled.get(arm.name),
            }
            for arm in arms
        ]
        json.dump({"experiment": experiment, "alpha": alpha, "unit": unit, "arms": described,
                   "mirror": msgspec.to_builtins(mirror)}, out, indent=2)  # fmt: skip
        out.write("\n")
        return
    for arm in arms:
        cost = "".join(f", {amount:.6f} {currency}" for currency, amount in sorted(arm.cost.items()))
        out.write(
            f"{arm.name}: weight {weights.get(arm.name, 0.0):g}, {arm.requests} requests of {arm.subjects} subjects, "
            f"{arm.prompt_tokens} prompt and {arm.completion_tokens} completion tokens{cost}; "
            f"{arm.by_testers} more by testers\n"
        )
        if arm.name in pulled:
            out.write(f"  taken out: {pulled[arm.name]}\n")
    if mirror is not None:
        out.write(f"mirror {mirror.pool}: {_copies(mirror.copies)}\n")
    observation = "a subject's first request" if unit == "subject" else "a request"
    out.write(f"\nOne observation is {observation}. Intervals and p-values hold however often one looks\n")
    out.write(f"(alpha {alpha:g}); differences are from {arms[0].name}.\n\n")
    rows = [_HEADER, *(_row(name, arm) for name in arms[0].metrics for arm in arms)]
    table(rows, _TEXT_COLUMNS, out)


def _copies(copies: Copies | None) -> str:
    if copies is None:
        return "not known, because Envoy says nothing of it at gateway.admin"
    latency = "".join(f", {name} {_number(value)} ms" for name, value in copies.latency_ms.items())
    told = f"{copies.ended} copies since Envoy started, {copies.sent} reached a server, {copies.failed} failed"
    return told + (latency or ", latency not known")


def _row(metric: str, arm: ArmReport) -> tuple[str, ...]:
    one: Measured = arm.metrics[metric]
    between = one.difference_interval
    return (
        metric,
        arm.name,
        str(one.observations),
        _number(one.value),
        f"[{_number(one.interval.low)}, {_number(one.interval.high)}]" if one.observations else "",
        "" if one.difference is None else f"{'+' if one.difference > 0 else ''}{_number(one.difference)}",
        "" if between is None else f"[{_number(between.low)}, {_number(between.high)}]",
        "" if one.p is None else f"{one.p:.4f}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _finite(value: Any) -> Any:
    """JSON has no infinity: null is no bound."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
