"""Keys of affinity, whatever the conversation: equal while it begins alike, and only then."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.balancing import ConsistentHash
from extproc.dialects.interface import InferenceRequest, RequestHead, TextSegment
from extproc.dialects.registry import resolve
from extproc.principal import ANONYMOUS
from extproc.routing.affinity import affinity, leading_bytes
from tests.helpers.hash_tables import Bounded, Maglev, Ring, Table, xxh64

BYTES = 128
HEAD = RequestHead("POST", "/v1/chat/completions", {})
texts = st.text(min_size=1, max_size=80)
turns = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), min_size=1, max_size=8)
Turns = list[tuple[str, str]]


def chat(said: Turns) -> InferenceRequest:
    api = resolve(HEAD).api
    assert api is not None
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in said]
    return api.parse(HEAD, json.dumps({"model": "m", "messages": messages}).encode())


def key(said: Turns) -> str | None:
    maker = affinity(ConsistentHash(blocks=2, block_bytes=BYTES // 2), b"a secret of sixteen")
    assert maker is not None
    return maker.key(chat(said), HEAD, ANONYMOUS)


def size_bytes(said: Turns) -> int:
    return sum(len(text.encode(errors="surrogatepass")) for _, text in said)


@given(turns, turns, texts)
def test_what_follows_the_first_blocks_changes_nothing(said: Turns, later: Turns, more: str) -> None:
    first = key(said)
    assert (first is None) == (size_bytes(said) < BYTES)
    if first is not None:
        assert key([*said, *later]) == first
        assert key([*said[:-1], (said[-1][0], said[-1][1] + more)]) == first


@given(turns, st.data())
def test_any_change_within_them_is_another_key(said: Turns, data: st.DataObject) -> None:
    said = [*said, ("user", "x" * BYTES)]
    every = [(turn, place) for turn, (_, text) in enumerate(said) for place in range(len(text))]
    hashed = [(turn, place) for turn, place in every if size_bytes(cut(said, turn, place + 1)) <= BYTES]
    turn, place = data.draw(st.sampled_from(hashed))
    role, text = said[turn]
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != text[place]))
    changed = (role, text[:place] + other + text[place + 1 :])
    assert key([*said[:turn], changed, *said[turn + 1 :]]) != key(said)


def cut(said: Turns, turn: int, place: int) -> Turns:
    """As far as that place of that turn."""
    return [*said[:turn], (said[turn][0], said[turn][1][:place])]


@given(turns, turns)
def test_nothing_is_glued_together(one: Turns, two: Turns) -> None:
    """Different turns never make the same bytes."""

    def whole(said: Turns) -> bytes | None:
        return leading_bytes([TextSegment(role, text, ()) for role, text in said], size_bytes(said))

    assert (whole(one) == whole(two)) == (one == two)


endpoint_weights = st.dictionaries(
    st.integers(1, 65535).map("10.0.0.1:{}".format), st.integers(1, 9).map(float), min_size=2, max_size=6
)


@pytest.mark.parametrize("kind", ["maglev", "ring"])
@given(weights=endpoint_weights)
def test_tables_give_keys_by_weight(kind: str, weights: dict[str, float]) -> None:
    table: Table = Maglev(weights, 4099) if kind == "maglev" else Ring(weights, 4096)
    count, total = 1000, sum(weights.values())
    places = [table.pick(xxh64(str(number).encode())) for number in range(count)]
    for endpoint, weight in weights.items():
        assert abs(places.count(endpoint) / count - weight / total) < 0.15
    idle = Bounded(table, weights, 100, lambda _: 0)
    assert [idle.pick(xxh64(str(number).encode())) for number in range(20)] == places[:20]
