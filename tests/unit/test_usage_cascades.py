"""What cascades cost and saved, summed up from the ledger."""

import io
import json

from extproc.cli.usage_cascades import show
from extproc.money import Price
from extproc.usage_cascades import Cascades

LARGE = Price(2_500_000_000, 1_000_000_000, 10_000_000_000, 0, "USD")
KEPT = {
    "model": "large", "cascade": "frugal/kept", "prompt_tokens": "100", "cached_tokens": "40",
    "completion_tokens": "10", "price_nano": "7000", "currency": "USD",
}  # fmt: skip
LARGE_NANO = 60 * 2500 + 40 * 1000 + 10 * 10_000
ESCALATED = {
    **KEPT,
    "cascade": "frugal/escalated",
    "cascade_reason": "unsure",
    "price_nano": "900000",
    "tried_nano": 600,
}


def summed(*records: dict[str, object]) -> Cascades:
    cascades = Cascades({"large": LARGE})
    for record in records:
        cascades.add(record)
    return cascades


def shown(form: str, *records: dict[str, object]) -> str:
    out = io.StringIO()
    show(summed(*records), form, out)
    return out.getvalue()


def test_what_was_kept_is_estimated_and_what_was_escalated_is_known() -> None:
    refused = {**ESCALATED, "cascade_reason": "refused"}
    ((named, use),) = summed(KEPT, KEPT, ESCALATED, ESCALATED, refused).uses()
    assert named == ("frugal", "large", "USD")
    assert (use.requests, use.kept, use.escalated) == (5, 2, {"unsure": 2, "refused": 1})
    assert use.cost_nano == 2 * 7000 + 3 * 900_000
    assert use.large_nano == 2 * LARGE_NANO + 3 * (900_000 - 600)
    assert use.saved_nano == 2 * (LARGE_NANO - 7000) - 3 * 600


def test_others_play_no_part() -> None:
    assert not summed({**KEPT, "cascade": ""}, {"model": "large"}, {**KEPT, "cascade": "frugal/left"}).uses()


def test_cascades_models_and_currencies_are_kept_apart() -> None:
    others = [{**KEPT, "cascade": "other/kept"}, {**KEPT, "model": "huge"}, {**KEPT, "currency": "EUR"}]
    assert [named for named, _ in summed(KEPT, *others).uses()] == [
        ("frugal", "huge", "USD"),
        ("frugal", "large", "EUR"),
        ("frugal", "large", "USD"),
        ("other", "large", "USD"),
    ]


def test_as_a_table() -> None:
    assert shown("table", KEPT, ESCALATED).splitlines()[:2] == [
        "CASCADE  MODEL  REQUESTS       KEPT  ESCALATED           WHY  CURRENCY     SPENT  LARGE_ALONE      SAVED",
        "frugal   large         2  1 (50.0%)  1 (50.0%)  unsure:50.0%       USD  0.000907    0.0011894  0.0002824",
    ]
    assert "estimate" in shown("table", KEPT)


def test_as_csv_and_json() -> None:
    assert shown("csv", ESCALATED).splitlines()[1] == (
        "frugal,large,1,0 (0.0%),1 (100.0%),unsure:100.0%,USD,0.0009,0.0008994,-0.0000006"
    )
    told = json.loads(shown("json", KEPT, ESCALATED))
    assert told["cascades"] == [
        {
            "cascade": "frugal", "model": "large", "requests": 2, "kept": 1, "escalated": {"unsure": 1},
            "currency": "USD", "spent": "0.000907", "spent_on_tries": "0.0000006",
            "large_alone_estimate": "0.0011894", "saved_estimate": "0.0002824",
        }
    ]  # fmt: skip
    assert "estimate" in told["note"]
