"""Endpoints that the service chooses, through the real Envoy: `least_tokens` and `gpu_aware`."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from extproc.cli.main import main
from extproc.stores.pending import BEAT_S, KEEP_S
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import Call, Script, ScriptedUpstream, answers, whole
from tests.helpers.services import ServedGateway, Upstreams, served

pytestmark = pytest.mark.xdist_group("endpoints")

CHAT = "/v1/chat/completions"
HEADER = "x-gateway-destination-endpoint"
QUICK_HEALTH = "health: {interval_s: 0.1, timeout_s: 1, unhealthy_after: 1}"
WORKERS = 2


@dataclass
class World:
    gateway: ServedGateway
    client: httpx.Client
    upstreams: list[ScriptedUpstream]
    metrics: list[ScriptedUpstream]
    redis: RedisServer
    threads: ThreadPoolExecutor
    asked: int = 0
    held: list[tuple[threading.Event, "Future[str]"]] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        return [address_of(upstream) for upstream in self.upstreams]

    def send(self, model: str, tokens: int, headers: Mapping[str, str] | None = None, text: str = "") -> httpx.Response:
        self.asked += 1
        body = {"model": model, "messages": [{"role": "user", "content": text or f"Question {self.asked}"}]}
        return self.client.post(CHAT, json={**body, "max_tokens": tokens}, headers=headers)

    def ask(self, model: str, tokens: int = 10, headers: Mapping[str, str] | None = None) -> str:
        """The address of the endpoint that answered."""
        answer = self.send(model, tokens, headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def hold(self, model: str, tokens: int) -> str:
        """Have a request of so many tokens in flight until `release`; the address of the endpoint that has it."""
        before = {upstream.port: len(upstream.seen) for upstream in self.upstreams}
        release = threading.Event()
        text = f"hold {len(self.held)} {self.asked}"
        HELD[text] = release
        self.held.append((release, self.threads.submit(self._ask_held, model, tokens, text)))

        def places() -> list[str]:
            return [address_of(one) for one in self.upstreams if len(one.seen) > before[one.port]]

        assert wait_until(lambda: len(places()) == 1)
        return places()[0]

    def _ask_held(self, model: str, tokens: int, text: str) -> str:
        answer = self.send(model, tokens, text=text)
        assert answer.status_code == 200, answer.text
        return answer.text

    def release(self) -> None:
        """Let all answers go that are held."""
        for event, _ in self.held:
            event.set()
        for _, answer in self.held:
            answer.result(20)
        self.held.clear()
        assert wait_until(lambda: self.pending() == 0)

    def pending(self) -> float:
        return self.gateway.books.metric("extproc_endpoint_pending_tokens")

    @contextlib.contextmanager
    def scripted(self, upstream: ScriptedUpstream, script: Script) -> Iterator[None]:
        usual, upstream.script = upstream.script, script
        try:
            yield
        finally:
            upstream.script = usual


HELD: dict[str, threading.Event] = {}


def address_of(upstream: ScriptedUpstream) -> str:
    return f"127.0.0.1:{upstream.port}"


def says_where(address: Callable[[], str]) -> Script:
    """Answers with its own address, and when it may."""

    def script(call: Call) -> None:
        for text, release in list(HELD.items()):
            if f'"{text}"'.encode() in call.seen.body:
                release.wait(30)
        call.answer(200, whole(address()))

    return script


def says(queue: float) -> Script:
    """A metrics page with such a queue."""
    return answers(200, b'nv_inference_pending_request_count{model="x",version="1"} %f\n' % queue, "text/plain")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as running:
        upstreams = [running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(3)]
        for upstream in upstreams:
            upstream.script = says_where(lambda upstream=upstream: address_of(upstream))  # type: ignore[misc]
        metrics = [running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(3)]
        for one in metrics:
            one.script = says(0)
        endpoints = ", ".join(f'"{address_of(one)}"' for one in upstreams)
        shown = ", ".join(f'"{address_of(one)}"' for one in metrics)
        common = f"dialect: openai, model: x, {QUICK_HEALTH}, outlier_detection: {{ejection_s: 1}}"
        here = f"clusters: {{a: {{endpoints: [{endpoints}], metrics: [{shown}]}}}}"
        pools = {
            "least": f"{{{common}, balancing: least_tokens, {here}}}",
            "gpu": f"{{{common}, balancing: gpu_aware, {here}}}",
            "narrow": f"{{{common}, balancing: least_tokens, {here}, circuit_breaker: {{max_requests: 1}}}}",
            "behind": f"{{{common}, clusters: {{a: {{endpoints: ['127.0.0.1:9']}}}}, fallback: [{{pool: least}}]}}",
            "door": f"{{{common}, clusters: {{a: {{endpoints: ['127.0.0.1:9']}}}}, fallback: [{{pool: narrow}}]}}",
        }
        directory = tmp_path_factory.mktemp("endpoints")
        redis = running.enter_context(contextlib.closing(RedisServer(directory)))
        policies = "polling: {interval_s: 0.2, stale_after_s: 30}\n"
        gateway = running.enter_context(served(directory, Upstreams(more=pools), workers=WORKERS, policies=policies))
        threads = running.enter_context(ThreadPoolExecutor(32))
        yield World(gateway, running.enter_context(gateway.client()), upstreams, metrics, redis, threads)


@pytest.fixture(autouse=True)
def _nothing_is_left(world: World) -> Iterator[None]:
    yield
    world.release()


def elsewhere(world: World, model: str, busy: str, times: int = 20) -> bool:
    """Whether the busy endpoint is left alone, by every worker."""
    return busy not in {world.ask(model) for _ in range(times)}


def test_short_requests_go_where_few_tokens_are_pending(world: World) -> None:
    """Not where few requests are: each of the other endpoints has more of those."""
    busy = world.hold("least", 2000)
    # The other worker knows as soon as it has heard.
    assert wait_until(lambda: elsewhere(world, "least", busy))
    places = Counter(world.hold("least", 10) for _ in range(8))
    assert busy not in places
    assert len(places) == 2


def test_idle_endpoints_take_turns_by_chance(world: World) -> None:
    assert set(Counter(world.ask("least") for _ in range(60))) == set(world.addresses)


def test_every_ending_gives_back_what_was_taken(world: World) -> None:
    release = threading.Event()
    text = f"left alone {world.asked}"
    HELD[text] = release
    body = {"model": "least", "messages": [{"role": "user", "content": text}], "max_tokens": 777}
    with pytest.raises(httpx.ReadTimeout):
        world.client.post(CHAT, json=body, timeout=1.0)
    release.set()
    with world.scripted(world.upstreams[0], answers(500, b"{}")):
        assert {world.send("least", 10).status_code for _ in range(20)} <= {200, 500, 502}
    assert wait_until(lambda: world.pending() == 0)


def test_another_worker_or_replica_is_heard_and_forgotten_when_it_dies(world: World) -> None:
    """Its field in Redis is all that is known of it."""
    busy = world.addresses[0]
    with contextlib.closing(world.redis.client()) as redis:
        keep_ms = int(KEEP_S * 1000)
        said = b'{"%s": 100000}' % busy.encode()
        redis.execute_command("HSETEX", "{extproc}:pending:least", "PX", keep_ms, "FIELDS", 1, "another", said)
        assert wait_until(lambda: elsewhere(world, "least", busy))
        assert wait_until(lambda: not elsewhere(world, "least", busy), 10.0)


def test_without_redis_it_goes_on_alone(world: World) -> None:
    world.redis.pause()
    try:
        assert wait_until(lambda: world.gateway.books.metric("extproc_degraded", policy="endpoint") == 1)
        assert world.gateway.books.metric("extproc_endpoint_sums_age_seconds") > 0
        assert {world.ask("least") for _ in range(40)} == set(world.addresses)
    finally:
        world.redis.resume()
    assert wait_until(lambda: world.gateway.books.metric("extproc_degraded", policy="endpoint") == 0)


def test_what_envoy_finds_unhealthy_gets_nothing(world: World) -> None:
    """Though Envoy would send it whatever is sent there by name."""
    sick = world.upstreams[1]
    sick.healthy = False
    try:
        assert wait_until(lambda: elsewhere(world, "least", address_of(sick)))
        assert elsewhere(world, "least", address_of(sick), 40)
    finally:
        sick.healthy = True
    assert wait_until(lambda: not elsewhere(world, "least", address_of(sick)), 20.0)


def test_one_that_fails_every_request_is_no_black_hole(world: World) -> None:
    """It is always idle, because it is so quick to fail."""
    with world.scripted(world.upstreams[0], answers(500, b"{}")):
        statuses = Counter(world.send("least", 10).status_code for _ in range(200))
    assert statuses[200] >= 180
    assert wait_until(lambda: not elsewhere(world, "least", world.addresses[0]), 20.0)


@pytest.mark.parametrize("model", ["narrow", "door"])
def test_who_was_not_asked_because_of_the_circuit_breaker_has_not_failed(world: World, model: str) -> None:
    world.hold("narrow", 10)
    assert {world.send(model, 10).status_code for _ in range(20)} == {503}
    time.sleep(2 * BEAT_S)  # what is not there has no event to wait for
    assert world.gateway.books.metric("extproc_endpoint_out", pool="narrow") == 0


@pytest.mark.parametrize("name", [HEADER, "X-Gateway-Destination-Endpoint"])
def test_a_client_does_not_choose(world: World, name: str) -> None:
    wish = world.addresses[0]
    busy = world.hold("least", 2000)
    wanted = {name: busy}
    assert wait_until(lambda: elsewhere(world, "least", busy))
    assert busy not in {world.ask("least", headers=wanted) for _ in range(20)}
    assert wish in world.addresses
    for upstream in world.upstreams:
        assert not [seen for seen in upstream.seen if HEADER in dict(seen.headers)]


def test_the_usage_event_says_which_one_answered(world: World) -> None:
    with world.gateway.books.accounted() as entries:
        place = world.ask("least")
    assert entries.only["endpoint"] == entries.only["endpoint_chosen"] == place


def test_a_busy_server_is_left_alone_by_what_it_says_of_itself(world: World) -> None:
    assert wait_until(lambda: {world.ask("gpu") for _ in range(30)} == set(world.addresses))
    with world.scripted(world.metrics[2], says(16)):
        busy = world.addresses[2]
        assert wait_until(lambda: elsewhere(world, "gpu", busy))
        # What was said may be seconds old: what is pending counts at once, until the busy one is the better choice.
        places = [world.hold("gpu", 10_000) for _ in range(12)]  # one worker has six of them at least
        assert places[0] != busy
        assert busy in places
    world.release()
    assert wait_until(lambda: not elsewhere(world, "gpu", busy), 20.0)


def test_a_fallback_pool_is_chosen_within_too(world: World) -> None:
    busy = world.hold("least", 2000)
    assert wait_until(lambda: elsewhere(world, "least", busy))
    places: list[Any] = [world.ask("behind") for _ in range(10)]
    assert busy not in places


def test_one_that_fails_every_request_is_no_black_hole_for_another_pool_either(world: World) -> None:
    with world.scripted(world.upstreams[0], answers(500, b"{}")):
        statuses = Counter(world.send("behind", 10).status_code for _ in range(100))
    assert statuses[200] >= 80
    assert wait_until(lambda: not elsewhere(world, "least", world.addresses[0]), 20.0)


def test_explain_says_which_and_why(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    busy = world.hold("least", 2000)
    config = str(world.gateway.directory / "gateway.yaml")
    request = world.gateway.directory / "asked.json"
    request.write_text('{"model": "least", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 10}')
    sick = next(one for one in world.upstreams if address_of(one) != busy)
    sick.healthy = False

    def told() -> list[str]:
        assert main(["route", "--explain", "--request", str(request), "--config", config]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("endpoint", "not known"))]

    (idle,) = set(world.addresses) - {busy, address_of(sick)}
    wanted = [f"endpoint {idle}: first choice, 0 t", f"endpoint {busy}: then, 20", f"endpoint {address_of(sick)}: out"]

    def as_wanted() -> bool:
        lines = told()
        return len(lines) == len(wanted) and all(map(str.startswith, lines, wanted))

    try:
        assert wait_until(as_wanted), told()
    finally:
        sick.healthy = True
    assert wait_until(lambda: not elsewhere(world, "least", address_of(sick)), 20.0)


def test_envoy_is_told_by_the_override_host_policy(world: World) -> None:
    url = f"http://127.0.0.1:{world.gateway.admin_port}/config_dump?resource=dynamic_active_clusters"
    (cluster,) = [
        found["cluster"] for found in httpx.get(url).json()["configs"] if found["cluster"]["name"].startswith("least/")
    ]
    (policy,) = cluster["load_balancing_policy"]["policies"]
    assert policy["typed_extension_config"]["name"] == "envoy.load_balancing_policies.override_host"
