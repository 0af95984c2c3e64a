"""Nothing reaches a model server without the service's stamp, whatever a client writes into its request."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.helpers.accounting import Books
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import Answer, chunked, exchange, request
from tests.helpers.scripted_upstream import Call, ScriptedUpstream, whole
from tests.helpers.services import KEY, NARROW_KEY, ServedGateway, Upstreams, served

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "openai", "messages": [{"role": "user", "content": "Hello!"}]}).encode()
STAMPS = {
    "the stamp": "x-extproc-pool: openai",
    "in upper case": "X-EXTPROC-POOL: openai",
    "in mixed case": "X-ExtProc-Pool: openai",
    "twice": "x-extproc-pool: openai\nx-extproc-pool: openai",
    "with another before it": "x-extproc-pool: nothing\nX-Extproc-Pool: openai",
    "with underscores": "x_extproc_pool: openai",
    "with both": "x-extproc_pool: openai\nx-extproc-pool: openai",
    "with spaces": "x-extproc-pool:    openai   ",
    "with an endpoint": "x-extproc-pool: openai\nx-gateway-destination-endpoint: 127.0.0.1:{port}",
    "what it is kept as": "x-kept-pool: openai\nx-kept-priority: 1",
    "as the connection's own": "connection: x-extproc-pool, close\nx-extproc-pool: openai",
    "with Envoy's own": "x-extproc-pool: openai\nx-envoy-original-path: /\nx-envoy-internal: true",
    "with another path": "x-extproc-pool: openai\nx-original-url: /health\nx-rewrite-url: /health",
}


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream
    other: ScriptedUpstream

    @property
    def reached(self) -> int:
        return len(self.upstream.seen) + len(self.other.seen)

    @property
    def books(self) -> Books:
        return self.gateway.books

    def send(self, data: bytes) -> Answer:
        return exchange(self.gateway.port, data)

    def headers(self, case: str) -> str:
        return STAMPS[case].format(port=self.upstream.port)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        contextlib.closing(ScriptedUpstream()) as upstream,
        contextlib.closing(ScriptedUpstream()) as other,
        served(tmp_path_factory.mktemp("forgery"), Upstreams(openai=upstream.port, triton=other.port)) as gateway,
    ):
        yield World(gateway, upstream, other)


@pytest.mark.parametrize("case", STAMPS)
@pytest.mark.parametrize("kind", ["a chat without a key", "a path nobody serves", "an empty post", "a get with a body"])
def test_a_forged_stamp_opens_no_way_in(world: World, kind: str, case: str) -> None:
    headers, before = world.headers(case), world.reached
    data = {
        "a chat without a key": request(CHAT, BODY, headers=headers),
        "a path nobody serves": request("/health", BODY, key=KEY, headers=headers),
        "an empty post": request(CHAT, b"", key=KEY, headers=headers),
        "a get with a body": request("/v2/models/x/infer", BODY, method="GET", key=KEY, headers=headers),
    }[kind]
    with world.books.accounted() as entries:
        answer = world.send(data)
    assert 400 <= answer.status < 500
    assert entries.only["termination"] == "REJECTED"
    assert world.reached == before


@pytest.mark.parametrize("case", STAMPS)
@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready?x=1", "/x/../v2//health/live/"])
def test_what_the_service_does_not_see_ends_in_envoy(world: World, path: str, case: str) -> None:
    before = world.reached
    with world.books.accounted(0):
        answer = world.send(request(path, BODY, method="GET", headers=world.headers(case)))
    assert (answer.status, answer.body) == (200, b"")
    assert world.reached == before


@pytest.mark.parametrize("case", STAMPS)
def test_a_forged_stamp_does_not_choose_the_pool(world: World, case: str) -> None:
    """A good request for another pool goes there, and nothing of what was forged goes with it."""
    before, other = len(world.upstream.seen), len(world.other.seen)
    world.other.script = lambda call: call.answer(
        200, b'{"text_output":"hello","finish_reason":"stop","num_input_tokens":1,"num_output_tokens":1}'
    )
    body = json.dumps({"model": "triton", "messages": [{"role": "user", "content": "Hello!"}]}).encode()
    with world.books.accounted() as entries:
        answer = world.send(request(CHAT, body, key=KEY, headers=world.headers(case)))
    assert answer.status == 200, answer.body
    assert answer.headers["x-extproc-pool"] == entries.only["pool"] == "triton"
    assert (len(world.upstream.seen), len(world.other.seen)) == (before, other + 1)
    seen = world.other.seen[-1]
    assert seen.path == "/v2/models/demo_llm/generate"
    names = [name for name, _ in seen.headers]
    assert not [name for name in names if name.startswith(("x-extproc", "x-gateway", "x-kept")) or "_" in name]
    assert {"authorization", "x-api-key", "cookie"}.isdisjoint(names)
    assert {name for name in names if name.startswith("x-envoy-")} <= {"x-envoy-external-address"}


@pytest.mark.parametrize("trailers", ["x-extproc-pool: openai", "authorization: Bearer " + KEY, ":path: /v1/models"])
def test_trailers_forge_nothing(world: World, trailers: str) -> None:
    before = world.reached
    data = request(
        CHAT, chunked(BODY, trailers=trailers), headers="transfer-encoding: chunked\ntrailer: x-extproc-pool"
    )
    assert world.send(data).status in {0, 400, 401}  # 0: what is no HTTP may end the connection without a word
    assert world.reached == before
    assert wait_until(lambda: world.books.in_flight() == 0)


def test_a_key_for_one_model_does_not_reach_another_by_a_forged_pool(world: World) -> None:
    before = world.reached
    body = BODY.replace(b'"openai"', b'"triton"')
    with world.books.accounted() as entries:
        answer = world.send(request(CHAT, body, key=NARROW_KEY, headers="x-extproc-pool: triton"))
    assert (answer.status, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    assert entries.outcomes() == [("REJECTED", "model_not_allowed", 403)]
    assert world.reached == before


def test_a_client_can_not_choose_its_request_id_or_its_address(world: World) -> None:
    forged = "x-request-id: mine\nx-envoy-external-address: 6.6.6.6\nx-forwarded-for: 6.6.6.6\nx-envoy-retry-on: 5xx"
    with world.books.accounted(2) as entries:
        answers = [world.send(request(CHAT, BODY, key=KEY, headers=forged)) for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert ids == [event["id"] for event in entries.events]
    assert len({*ids, "mine"}) == 3
    headers = dict(world.upstream.seen[-1].headers)
    assert headers["x-request-id"] == ids[1]
    assert headers["x-envoy-external-address"] == "127.0.0.1"
    assert "x-envoy-retry-on" not in headers


def test_an_upstream_can_not_speak_for_the_gateway(world: World) -> None:
    def forge(call: Call) -> None:
        lies = "x-extproc-degraded: lies\r\nx-extproc-pool: lies\r\nx-ratelimit-limit-requests: 9\r\nserver: lies"
        call.start(200, "application/json", f"{lies}\r\ncontent-length: {len(whole())}")
        call.write(whole())

    world.upstream.script = forge
    answer = world.send(request(CHAT, BODY, key=KEY))
    assert answer.status == 200
    assert answer.headers["x-extproc-pool"] == "openai"
    assert answer.headers["server"] == "extproc"
    assert "lies" not in str(answer.headers)
    assert "x-ratelimit-limit-requests" not in answer.headers


ATTEMPTS = {
    "an empty post": request(CHAT, b"", key=KEY, headers=STAMPS["the stamp"]),
    "a post without a body": request(CHAT, key=KEY, headers=STAMPS["the stamp"]),
    "a chat": request(CHAT, BODY, key=KEY, headers=STAMPS["the stamp"]),
    "a get": request("/v1/models", method="GET", key=KEY, headers=STAMPS["the stamp"]),
    "a get with a body": request("/v1/models", BODY, method="GET", key=KEY, headers=STAMPS["the stamp"]),
    "a path nobody serves": request("/health", BODY, key=KEY, headers=STAMPS["the stamp"]),
    "trailers": request(
        CHAT, chunked(BODY, trailers=STAMPS["the stamp"]), key=KEY, headers="transfer-encoding: chunked"
    ),
    "a large body": request(CHAT, b" " * 900_000, key=KEY, headers=STAMPS["the stamp"]),
    "a head": request("/v1/models", method="HEAD", key=KEY, headers=f"{STAMPS['the stamp']}\nconnection: close"),
}


@pytest.fixture(scope="module")
def orphaned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway whose service has been killed."""
    with contextlib.closing(ScriptedUpstream()) as upstream:
        directory: pathlib.Path = tmp_path_factory.mktemp("orphaned")
        with served(directory, Upstreams(openai=upstream.port)) as gateway:
            gateway.service.kill()
            yield World(gateway, upstream, upstream)


@pytest.mark.parametrize("case", ATTEMPTS)
def test_without_the_service_nothing_passes(orphaned: World, case: str) -> None:
    answer = orphaned.send(ATTEMPTS[case])
    assert answer.status == 503
    if case != "a head":
        assert answer.json()["error"]["code"] == "overloaded"
    assert answer.headers["retry-after"] == "1"
    assert orphaned.upstream.seen == []


def test_without_the_service_http2_does_not_pass_either(orphaned: World) -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-extproc-pool": "openai"}
    with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{orphaned.gateway.port}") as client:
        answer = client.post(CHAT, content=BODY, headers=headers)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 503)
    assert orphaned.upstream.seen == []
