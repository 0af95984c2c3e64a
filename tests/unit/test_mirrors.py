"""What Envoy's statistics say of copies, and what is said where it says nothing."""

import json
from typing import Any

import pytest

from extproc.cli.ab_output import show
from extproc.operations import mirrors
from extproc.operations.mirrors import Copies, Mirror

PREFIX = "cluster.candidate/split/copies."


def page(counted: dict[str, int], *, timed: bool = True) -> bytes:
    """As Envoy writes it: a counter that never counted is left out, and so are histograms without a name."""
    stats: list[dict[str, Any]] = [{"name": f"{PREFIX}upstream_rq_{name}", "value": n} for name, n in counted.items()]
    values = [{"cumulative": float(n) if timed else None, "interval": None} for n in range(4)]
    stats.append(
        {
            "histograms": {
                "supported_quantiles": [0, 50, 95, 99],
                "computed_quantiles": [{"name": f"{PREFIX}upstream_rq_time", "values": values}],
            }
        }
    )
    return json.dumps({"stats": stats}).encode()


def test_counters_and_percentiles() -> None:
    told = mirrors.copies_in(page({"completed": 7, "total": 6, "5xx": 2}), PREFIX)
    assert told == Copies(7, 6, 2, {"p50": 1.0, "p95": 2.0, "p99": 3.0})


def test_a_counter_that_never_counted_is_nought_and_a_time_that_was_not_taken_is_not() -> None:
    assert mirrors.copies_in(page({"completed": 0, "total": 0}, timed=False), PREFIX) == Copies(0, 0, 0, {})


def test_a_cluster_that_envoy_does_not_have_is_not_known() -> None:
    assert mirrors.copies_in(b'{"stats":[]}', PREFIX) is None
    assert mirrors.copies_in(page({"completed": 7}), "cluster.candidate/other/copies.") is None


def test_how_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from extproc.experiments.report import ArmReport

    arms = [ArmReport("a")]
    show("split", arms, {}, {}, 0.05, "subject", as_json=False, mirror=Mirror("candidate", None))
    assert "mirror candidate: not known" in capsys.readouterr().out
    known = Mirror("candidate", Copies(7, 6, 2, {"p50": 1.5}))
    show("split", arms, {}, {}, 0.05, "subject", as_json=False, mirror=known)
    assert (
        "mirror candidate: 7 copies since Envoy started, 6 reached a server, 2 failed, p50 1.5 ms"
        in capsys.readouterr().out
    )
