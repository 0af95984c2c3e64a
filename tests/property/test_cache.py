"""What no request may do: get an answer that is not its own."""

from __future__ import annotations

import asyncio
import copy
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.caching import EntryName
from extproc.config.policy import PolicyMode
from extproc.dialects.answer import Delta, Done
from extproc.dialects.interface import TokenTotals
from extproc.dialects.openai_essence import essence
from extproc.dialects.openai_requests import ChatRequest
from extproc.policies import cache_entry, pipeline
from extproc.policies.cache_entry import Collected
from extproc.policies.cache_settings import Settings, Tenant
from extproc.policies.context import RequestContext
from extproc.policies.count_tokens import CountTokens
from extproc.policies.count_tokens import Settings as CountSettings
from extproc.policies.limit_settings import KnownAnswers, Midstream
from extproc.policies.limit_settings import Settings as LimitSettings
from extproc.policies.validate import Settings as ValidateSettings
from extproc.stores.answers import member, tenant_prefix
from extproc.stores.seal import Broken, Sealer
from tests.helpers.journeys import Inside
from tests.helpers.shelf import Keys, Shelf, answered

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
CHATS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "n"]),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": TEXT}),
            min_size=1,
            max_size=3,
        ),
    },
    optional={
        "temperature": st.sampled_from([0, 0.0, 1, 1.0, 0.5]),
        "seed": st.integers(0, 2),
        "max_tokens": st.integers(1, 3),
        "n": st.integers(1, 2),
        "stop": st.lists(TEXT, max_size=2),
        "logprobs": st.booleans(),
        "stream": st.booleans(),
        "user": TEXT,
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    },
)
IRRELEVANT = ("model", "stream", "user")


@given(CHATS, CHATS)
def test_the_essence_is_all_that_matters(one: dict[str, Any], other: dict[str, Any]) -> None:
    def matters(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name not in IRRELEVANT}

    pack = msgspec.msgpack.encode
    same = matters(one) == matters(other)
    # In Python True is 1, so equal fields can be of different types.
    same = same and all(isinstance(one[name], bool) == isinstance(other[name], bool) for name in matters(one))
    assert (pack(essence(one)) == pack(essence(other))) is same


@given(CHATS, st.randoms(use_true_random=False))
def test_the_order_of_a_bodys_keys_does_not_matter(fields: dict[str, Any], random: Any) -> None:
    names = list(fields)
    random.shuffle(names)
    shuffled = {name: fields[name] for name in names}
    shuffled["messages"] = [dict(reversed(message.items())) for message in fields["messages"]]
    assert msgspec.msgpack.encode(essence(shuffled)) == msgspec.msgpack.encode(essence(fields))
    before = copy.deepcopy(fields)
    ChatRequest(fields).essence()
    assert fields == before


@given(st.text(max_size=20), st.text(max_size=20), st.binary(max_size=2000))
def test_a_seal_opens_under_its_own_name_alone(name: str, other: str, content: bytes) -> None:
    sealer = Sealer(b"secret")
    sealed = sealer.seal(name, content)
    assert sealer.open(name, sealed) == content
    if name != other:
        with pytest.raises(Broken):
            sealer.open(other, sealed)
    with pytest.raises(Broken):
        Sealer(b"Secret").open(name, sealed)


@given(st.binary(max_size=200))
def test_garbage_opens_under_no_name(garbage: bytes) -> None:
    with pytest.raises(Broken):
        Sealer(b"secret").open("name", garbage)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), unique=True, min_size=2, max_size=5))
def test_no_two_names_are_one_key(names: list[tuple[str, str, str]]) -> None:
    keys = {
        tenant_prefix(tenant) + member(EntryName(tenant, model, namespace, "d")) for tenant, model, namespace in names
    }
    assert len(keys) == len(names)
    prefixes = {tenant for tenant, _, _ in names}
    for one, other in itertools.permutations(prefixes, 2):
        assert not tenant_prefix(one).startswith(tenant_prefix(other))


PIECES = st.lists(st.tuples(st.integers(0, 2), TEXT, TEXT), max_size=8)


@given(PIECES)
def test_what_is_kept_is_what_was_said(pieces: list[tuple[int, str, str]]) -> None:
    events = [Delta(index, text, reasoning, raw=b"bytes of an upstream") for index, text, reasoning in pieces]
    ends = [Delta(index, finish_reason="stop") for index in {0, *(index for index, _, _ in pieces)}]
    collected = Collected(1 << 20)
    collected.add([*events, *ends])
    assert not collected.is_whole
    collected.add([Done()])
    assert collected.is_whole
    kept = cache_entry.decode(cache_entry.encode(collected.events, TokenTotals(1, 2, 3)))
    *said, done = kept.replayed
    assert [(one.index, one.text, one.reasoning, one.raw) for one in said if isinstance(one, Delta)] == [
        *((index, text, reasoning, None) for index, text, reasoning in pieces),
        *((one.index, "", "", None) for one in ends),
    ]
    assert type(done) is Done
    assert kept.totals == TokenTotals(1, 2, 3)


ASKED = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["red/ann/pro", "red/bob/pro", "red/cid/free", "blue/ann/pro", "red-ann/x/pro"]),
        "namespace": st.sampled_from(["", "a", "b"]),
        "model": st.sampled_from(["talker", "writer"]),
        "question": st.sampled_from(["Hi", "Hi ", "hi"]),
        "system": st.sampled_from(["", "Be brief."]),
        "seed": st.sampled_from([None, 1, 2]),
        "stream": st.booleans(),
    }
)


@pytest.mark.parametrize("tenant", list(Tenant))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(ASKED, min_size=2, max_size=12))
def test_nobody_gets_what_is_not_his(tmp_path: Path, tenant: Tenant, requests: list[dict[str, Any]]) -> None:
    """Whatever is asked in whatever order: an answer comes from the same tenant's same request, and then it does."""

    async def run() -> None:
        policies = {"cache": Settings(mode=PolicyMode.ENFORCE, tenant=tenant, wait_s=0)}
        inside = Inside(tmp_path, policies, answers=Shelf(), keys=Keys())
        first: dict[str, str] = {}
        for number, asked in enumerate(requests):
            team, person, tier = asked["key"].split("/")
            whose = team if tenant is Tenant.TEAM else f"{team}-{person}"
            same = {**asked, "key": (whose, tier), "stream": None}
            said = f"<{number}>"
            text, how = await answered(inside, asked, said)
            expected = first.setdefault(repr(sorted(same.items())), said)
            assert expected in text
            assert how == ("miss" if expected == said else "hit")

    asyncio.run(run())


async def test_a_shadow_keeps_and_counts_and_changes_nothing(tmp_path: Path) -> None:
    policies = {"cache": Settings(mode=PolicyMode.SHADOW)}
    inside = Inside(tmp_path, policies, answers=Shelf(), keys=Keys())
    asked = {"key": "red/ann/pro", "namespace": "", "model": "talker", "question": "Hi", "system": "", "seed": 1}
    for said in ("one", "two"):
        text, how = await answered(inside, {**asked, "stream": False}, said)
        assert said in text
        assert how == "miss"
    assert inside.metric("extproc_cache_lookups_total", level="exact", result="hit") == 1
    assert [event["cache"] for event in inside.usage.events] == ["miss", "miss"]


@pytest.mark.parametrize("forbid", [False, True])
async def test_what_a_policy_forbids_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbid: bool) -> None:
    shelf, count = Shelf(), CountTokens.on_answer

    async def on_answer(self: CountTokens, ctx: RequestContext, events: Any) -> Any:
        if forbid:
            ctx.not_for_others.add("somebody")
        return await count(self, ctx, events)

    monkeypatch.setattr(CountTokens, "on_answer", on_answer)
    inside = Inside(tmp_path, {"cache": Settings(mode=PolicyMode.ENFORCE)}, answers=shelf, keys=Keys())
    asked = {"key": "red/ann/pro", "namespace": "", "model": "talker", "question": "Hi", "system": "", "seed": 1}
    await answered(inside, {**asked, "stream": True}, "one")
    assert len(shelf.kept) == (0 if forbid else 1)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"cache": Settings(mode=PolicyMode.ENFORCE, ttl_s=5.0)}, True),
        ({"limit": LimitSettings(midstream=Midstream.ALLOW)}, True),
        ({"count_tokens": CountSettings(inline_limit_bytes=1)}, False),
        ({"validate": ValidateSettings(max_choices=1)}, False),
    ],
)
def test_other_policies_are_another_version(changed: dict[str, Any], same: bool) -> None:
    """What is not known to be irrelevant counts."""
    assert (pipeline.answers_version(changed) == pipeline.answers_version({})) is same


@pytest.mark.parametrize(("cost", "tokens"), [("nothing", 0), ("request", 0), ("as_used", 15)])
async def test_a_hit_costs_what_is_configured(tmp_path: Path, cost: str, tokens: int) -> None:
    policies = {
        "cache": Settings(mode=PolicyMode.ENFORCE),
        "limit": LimitSettings(known_answers=KnownAnswers(cost)),
    }
    inside = Inside(tmp_path, policies, answers=Shelf(), keys=Keys())
    asked = {"key": "red/ann/pro", "namespace": "", "model": "talker", "question": "Hi", "system": "", "seed": 1}
    for said in ("one", "two"):
        await answered(inside, {**asked, "stream": False}, said)
    hit = inside.usage.events[-1]
    assert hit["cache"] == "hit"
    assert hit["prompt_tokens"] + hit["completion_tokens"] == tokens
    assert hit["saved_tokens"] > 0
    assert not inside.usage.owed


@pytest.mark.parametrize("old", [b"", b"\x00", b"\x93\x90\x01\x02", b"\x94\x91\x81\xa1t\xa1x\x01\x02\x03"])
async def test_what_an_older_version_kept_is_a_miss(tmp_path: Path, old: bytes) -> None:
    shelf = Shelf()
    inside = Inside(tmp_path, {"cache": Settings(mode=PolicyMode.ENFORCE)}, answers=shelf, keys=Keys())
    asked = {"key": "red/ann/pro", "namespace": "", "model": "talker", "question": "Hi", "system": "", "seed": 1}
    await answered(inside, {**asked, "stream": True}, "one")
    for name in shelf.kept:
        shelf.kept[name] = old
    assert await answered(inside, {**asked, "stream": False}, "two") != (old, "hit")
    text, how = await answered(inside, {**asked, "stream": True}, "three")
    assert ("two" in text, how) == (True, "hit")
