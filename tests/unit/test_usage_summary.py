"""Sums of usage: every record in exactly one group, amounts of different currencies apart."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cli.usage_output import show
from extproc.usage_summary import DIMENSIONS, Summary

RECORDS = st.fixed_dictionaries(
    {
        "time": st.floats(0, 4e9),
        "team": st.sampled_from(["a", "b", ""]),
        "model": st.sampled_from(["m", "n"]),
        "prompt_tokens": st.integers(0, 10**6) | st.integers(0, 10**6).map(str),
        "completion_tokens": st.just("") | st.integers(0, 10**6).map(str),
        "price_nano": st.integers(0, 10**24).map(str),
        "currency": st.sampled_from(["USD", "EUR", ""]),
    }
)


@given(st.lists(RECORDS, max_size=30), st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=4))
def test_groups_add_up_to_the_total(records: list[dict[str, object]], by: list[str]) -> None:
    summary = Summary(by)
    for record in records:
        summary.add(record)
    groups = summary.groups()
    assert sum(usage.requests for _, usage in groups) == summary.total.requests == len(records)
    assert sum(usage.prompt_tokens for _, usage in groups) == sum(int(str(r["prompt_tokens"])) for r in records)
    for currency in ("USD", "EUR"):
        expected = sum(int(str(r["price_nano"])) for r in records if r["currency"] == currency)
        assert sum(usage.cost_nano.get(currency, 0) for _, usage in groups) == expected
        assert summary.total.cost_nano.get(currency, 0) == expected


def test_time_is_from_inclusive_until_exclusive() -> None:
    summary = Summary((), since_s=10.0, until_s=20.0)
    for time_s in (9.999, 10.0, 19.999, 20.0):
        summary.add({"time": time_s})
    assert summary.total.requests == 2


def test_a_day_is_one_of_utc() -> None:
    summary = Summary(("day",))
    for time_s in (0.0, 86399.9, 86400.0):
        summary.add({"time": str(time_s)})
    assert [(group, usage.requests) for group, usage in summary.groups()] == [
        (("1970-01-01",), 2),
        (("1970-01-02",), 1),
    ]


def filled() -> Summary:
    summary = Summary(("team",))
    summary.add({"team": "b", "prompt_tokens": 10, "completion_tokens": 5, "price_nano": 1, "currency": "USD"})
    summary.add({"team": "a", "prompt_tokens": 7, "cached_tokens": 2, "price_nano": 2_500_000_000, "currency": "EUR"})
    summary.add({"team": "a", "price_nano": 0, "currency": ""})
    summary.add({"team": ""})
    return summary


def shown(form: str) -> str:
    out = io.StringIO()
    show(filled(), ("team",), form, out)
    return out.getvalue()


def test_as_a_table() -> None:
    assert shown("table") == (
        "TEAM   REQUESTS  PROMPT_TOKENS  CACHED_TOKENS  COMPLETION_TOKENS  SAVED_TOKENS  COST_EUR     COST_USD\n"
        "-             1              0              0                  0             0      0.00         0.00\n"
        "a             2              7              2                  0             0      2.50         0.00\n"
        "b             1             10              0                  5             0      0.00  0.000000001\n"
        "total         4             17              2                  5             0      2.50  0.000000001\n"
    )


def test_as_csv() -> None:
    assert shown("csv").splitlines() == [
        "team,requests,prompt_tokens,cached_tokens,completion_tokens,saved_tokens,cost_EUR,cost_USD",
        ",1,0,0,0,0,0.00,0.00",
        "a,2,7,2,0,0,2.50,0.00",
        "b,1,10,0,5,0,0.00,0.000000001",
    ]


def test_as_json() -> None:
    parsed = json.loads(shown("json"))
    assert parsed["groups"][2] == {
        "team": "b", "requests": 1, "prompt_tokens": 10, "cached_tokens": 0, "completion_tokens": 5, "saved_tokens": 0,
        "cost": {"USD": "0.000000001"},
    }  # fmt: skip
    assert parsed["total"]["cost"] == {"EUR": "2.50", "USD": "0.000000001"}


def test_a_count_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Summary(()).add({"prompt_tokens": "many"})
