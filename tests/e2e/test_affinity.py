"""Requests with a key keep to one endpoint of their pool, through the real Envoy; those without go anywhere."""

import contextlib
import functools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from extproc.config.balancing import ConsistentHash, HashBy
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.principal import ANONYMOUS
from extproc.routing.affinity import affinity
from tests.helpers.hash_tables import Bounded, Maglev, Ring, Table, xxh64
from tests.helpers.processes import wait_until
from tests.helpers.scripted_upstream import Call, Script, ScriptedUpstream, answers, whole
from tests.helpers.services import SECRET, ServedGateway, Upstreams, served

CHAT = "/v1/chat/completions"
ENDPOINTS = 5
SESSIONS = [f"session-{number}" for number in range(200)]
LONG = "You are a careful assistant. " * 160
QUICK_HEALTH = "health: {interval_s: 0.1, timeout_s: 1, unhealthy_after: 1}"


@dataclass
class World:
    gateway: ServedGateway
    client: httpx.Client
    upstreams: list[ScriptedUpstream]

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{upstream.port}" for upstream in self.upstreams]

    def chat(self, model: str, *texts: str, headers: Mapping[str, str] | None = None, **more: Any) -> str:
        """The address of the endpoint that answered."""
        roles = ("system", "user", "assistant")
        messages = [{"role": roles[min(at, 1 + (at + 1) % 2)], "content": text} for at, text in enumerate(texts)]
        body = {"model": model, "messages": messages, **more}
        answer = self.client.post(CHAT, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def sessions(self, model: str) -> dict[str, str]:
        """Where each session goes."""
        return {session: self.chat(model, "Hello!", headers={"x-session": session}) for session in SESSIONS}

    @contextlib.contextmanager
    def scripted(self, script: Callable[[str], Script]) -> Iterator[None]:
        """Every endpoint does what `script` says for its address."""
        for upstream in self.upstreams:
            upstream.script = script(f"127.0.0.1:{upstream.port}")
        try:
            yield
        finally:
            for upstream in self.upstreams:
                upstream.script = answers(200, whole(f"127.0.0.1:{upstream.port}"))

    def healthy(self, model: str) -> int:
        return sum(line.endswith("::healthy") for line in self.gateway.clusters(f"{model}/all/endpoints"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as running:
        upstreams = [running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(ENDPOINTS)]
        for upstream in upstreams:
            upstream.script = answers(200, whole(f"127.0.0.1:{upstream.port}"))
        one, other = (", ".join(f'"127.0.0.1:{one.port}"' for one in part) for part in (upstreams[:2], upstreams[2:]))

        def pool(settings: str, weight: int = 3) -> str:
            a, b = f"{{weight: 2, endpoints: [{one}]}}", f"{{weight: {weight}, endpoints: [{other}]}}"
            return f"{{dialect: openai, model: x, clusters: {{a: {a}, b: {b}}}, {QUICK_HEALTH}, {settings}}}"

        def hashed(settings: str) -> str:
            return pool(f"balancing: consistent_hash, consistent_hash: {{{settings}}}")

        by_session = "by: header, header: x-session, max_load_percent: null"
        pools = {
            "prefix": hashed("by: prefix"),
            "key": hashed("by: principal"),
            "user": hashed("by: user"),
            "maglev": hashed(f"{by_session}, table: maglev"),
            "ring": hashed(f"{by_session}, table: ring_hash"),
            "reweighted": pool(f"balancing: consistent_hash, consistent_hash: {{{by_session}}}", weight=7),
            "bounded": hashed("by: header, header: x-session, max_load_percent: 100"),
            "in-turn": pool("balancing: round_robin"),
            "least": pool("balancing: least_request"),
            "nothing": pool("balancing: least_request", weight=0),
        }
        directory = tmp_path_factory.mktemp("affinity")
        gateway = running.enter_context(served(directory, Upstreams(more=pools)))
        yield World(gateway, running.enter_context(gateway.client()), upstreams)


def expected(table: Table, settings: ConsistentHash) -> dict[str, str]:
    """Where the sessions belong, by our key and Envoy's table."""
    maker = affinity(settings, SECRET.encode())
    assert maker is not None
    head = RequestHead("POST", CHAT, {})
    api = resolve(head).api
    assert api is not None
    request = api.parse(head, json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode())
    keys = {one: maker.key(request, RequestHead("POST", CHAT, {"x-session": one}), ANONYMOUS) for one in SESSIONS}
    return {session: table.pick(xxh64((key or "").encode())) for session, key in keys.items()}


BY_SESSION = ConsistentHash(by=HashBy.HEADER, header="x-session")


def test_a_conversation_stays_where_it_is_and_others_spread(world: World) -> None:
    begun = {number: world.chat("prefix", LONG, f"{number} " * 40) for number in range(3)}
    assert len(set(begun.values())) == 1, "the key is in the system prompt"
    first = {number: world.chat("prefix", f"{number}. {LONG}", "Hello!") for number in range(30)}
    again = {number: world.chat("prefix", f"{number}. {LONG}", "Hello!", "Hi!", "And?") for number in first}
    assert again == first
    assert len(set(first.values())) == ENDPOINTS


def test_a_short_prompt_goes_anywhere(world: World) -> None:
    assert len({world.chat("prefix", "Be brief.", "Hello!") for _ in range(60)}) == ENDPOINTS


def test_a_caller_and_a_user_keep_to_an_endpoint(world: World) -> None:
    assert len({world.chat("key", f"Question {number}") for number in range(20)}) == 1
    places = {user: {world.chat("user", f"{turn}", user=user) for turn in range(3)} for user in map(str, range(20))}
    assert all(len(place) == 1 for place in places.values())
    assert len(set.union(*places.values())) > 1
    assert len({world.chat("user", "Nobody's question") for _ in range(60)}) == ENDPOINTS


@pytest.mark.parametrize("model", ["maglev", "ring"])
def test_one_that_leaves_takes_only_its_own_along(world: World, model: str) -> None:
    """And Envoy agrees on every key with tests/helpers/hash_tables.py, on which figures of docs/routing.md stand."""
    weights = dict.fromkeys(world.addresses, 1.0)
    before = expected(table(model, weights), BY_SESSION)
    assert wait_until(lambda: world.sessions(model) == before)
    gone, address = world.upstreams[-1], world.addresses[-1]
    gone.healthy = False
    try:
        assert wait_until(lambda: world.healthy(model) == ENDPOINTS - 1)
        del weights[address]
        after = expected(table(model, weights), BY_SESSION)
        assert wait_until(lambda: world.sessions(model) == after)
    finally:
        gone.healthy = True
    moved = sum(before[session] not in (address, after[session]) for session in SESSIONS)
    assert moved <= {"maglev": 0.02, "ring": 0.25}[model] * len(SESSIONS)
    assert wait_until(lambda: world.healthy(model) == ENDPOINTS)
    assert wait_until(lambda: world.sessions(model) == before)


def table(kind: str, weights: Mapping[str, float]) -> Table:
    return Maglev(weights) if kind == "maglev" else Ring(weights, 32_768)


def test_weights_change_while_it_runs(world: World) -> None:
    """A cluster's weight is shared by its endpoints: 2 by two and 7 by three, then 1 by three."""
    light, heavy = world.addresses[:2], world.addresses[2:]
    before = world.sessions("reweighted")
    assert before == expected(Maglev(dict.fromkeys(light, 3.0) | dict.fromkeys(heavy, 7.0)), BY_SESSION)
    world.gateway.change("weight: 7,", "weight: 1,")
    lighter = expected(Maglev(dict.fromkeys(light, 3.0) | dict.fromkeys(heavy, 1.0)), BY_SESSION)
    assert wait_until(lambda: world.sessions("reweighted") == lighter)
    won = [session for session in SESSIONS if before[session] in light]
    assert sum(lighter[session] == before[session] for session in won) >= 0.95 * len(won)


def test_a_cluster_without_weight_gets_nothing(world: World) -> None:
    assert {world.chat("nothing", "Hello!") for _ in range(40)} == set(world.addresses[:2])


@pytest.mark.parametrize("name", ["x-extproc-affinity", "X-Extproc-Affinity", "x_extproc_affinity"])
def test_a_client_does_not_choose(world: World, name: str) -> None:
    """Neither in place of the key nor where there is none; and no endpoint learns of it."""
    text = f"A conversation. {LONG}"
    right = world.chat("prefix", text)
    assert {world.chat("prefix", text, headers={name: f"{number:016}"}) for number in range(20)} == {right}
    assert len({world.chat("prefix", "Hello!", headers={name: "0123456789abcdef"}) for _ in range(60)}) == ENDPOINTS
    names = {name for upstream in world.upstreams for seen in upstream.seen for name, _ in seen.headers}
    assert not [name for name in names if name.replace("_", "-").startswith("x-extproc-")]


def has(places: list[str], count: int) -> bool:
    return len(places) == count


def held_at_once(world: World, model: str, session: str, count: int) -> list[str]:
    """Where so many requests of one session go that come while those before them are not answered yet."""
    release, taken = threading.Event(), list[str]()

    def hold(address: str) -> Script:
        def script(call: Call) -> None:
            taken.append(address)
            release.wait(20)
            call.answer(200, whole(address))

        return script

    with world.scripted(hold), ThreadPoolExecutor(count) as threads:
        for sent in range(count):
            threads.submit(world.chat, model, "Hello!", headers={"x-session": session})
            if not wait_until(functools.partial(has, taken, sent + 1), 10.0):
                break
        release.set()
    return taken


def test_an_overloaded_endpoint_is_passed_over(world: World) -> None:
    """For the same others, in the key's own order."""
    session = SESSIONS[0]
    weights = dict.fromkeys(world.addresses, 1.0)
    home = expected(Maglev(weights), BY_SESSION)[session]
    assert held_at_once(world, "maglev", session, 8) == [home] * 8
    active: Counter[str] = Counter()
    bounded = Bounded(Maglev(weights), weights, 100, active.__getitem__)
    for place in held_at_once(world, "bounded", session, 12):
        assert place == expected(bounded, BY_SESSION)[session]
        active[place] += 1
    assert active.total() == 12
    assert len(active) > 1


def test_a_retry_goes_to_another_endpoint(world: World) -> None:
    """Any other, by chance, until the failing one is ejected; then the key has another home."""
    home = world.chat("maglev", "Hello!", headers={"x-session": "one"})

    def refuses_at_home(address: str) -> Script:
        return answers(503, b"{}") if address == home else answers(200, whole(address))

    with world.scripted(refuses_at_home):
        others = {world.chat("maglev", "Hello!", headers={"x-session": "one"}) for _ in range(40)}
    assert others <= set(world.addresses) - {home}


@pytest.mark.parametrize(
    ("pool", "policy"),
    [("in-turn", "ROUND_ROBIN"), ("least", "LEAST_REQUEST"), ("maglev", "MAGLEV"), ("ring", "RING_HASH")],
)
def test_envoy_balances_all_endpoints_as_one_cluster(world: World, pool: str, policy: str) -> None:
    url = f"http://127.0.0.1:{world.gateway.admin_port}/config_dump?resource=dynamic_active_clusters"
    (cluster,) = [
        found["cluster"]
        for found in httpx.get(url).json()["configs"]
        if found["cluster"]["name"].startswith(f"{pool}/")
    ]
    assert cluster.get("lb_policy", "ROUND_ROBIN") == policy
    assert len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]) == ENDPOINTS


def test_in_turn_is_in_turn_over_all_endpoints(world: World) -> None:
    assert Counter(world.chat("in-turn", "Hello!") for _ in range(10 * ENDPOINTS)) == dict.fromkeys(world.addresses, 10)
