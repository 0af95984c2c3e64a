"""Personal data through real Envoy: what model servers receive in every API, what clients get back, and that none of
it is left anywhere."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis

from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import Call, ScriptedUpstream, answers, content, hang, stream, whole
from tests.helpers.services import NARROW_KEY, ServedGateway, Upstreams, served

MAIL = "zebulon.quagmire@example.com"
SHOWN = b"<EMAIL_ADDRESS>"
POLICIES = """
policies:
  redact:
    mode: enforce
    requests: {action: redact, actions: {URL: allow}}
"""
PSEUDONYMS = """
policies:
  redact:
    mode: enforce
    requests: {action: pseudonymise}
    responses: {action: redact}
"""
DONE = b"data: [DONE]\n\n"


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream

    def post(self, path: str, body: dict[str, Any] | bytes, **headers: str) -> httpx.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.gateway.client() as client:
            return client.post(path, content=data, headers={"content-type": "application/json", **headers})

    @property
    def received(self) -> bytes:
        """The last body that the model server got."""
        return self.upstream.seen[-1].body


@contextlib.contextmanager
def world(directory: pathlib.Path, policies: str) -> Iterator[World]:
    with contextlib.closing(ScriptedUpstream()) as upstream:
        ports = Upstreams(openai=upstream.port, triton=upstream.port, kserve=upstream.port)
        directory.mkdir()
        with (
            contextlib.closing(RedisServer(directory)),
            served(directory, ports, policies=policies) as gateway,
        ):
            yield World(gateway, upstream)


@pytest.fixture(scope="module")
def redacting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("redacting") / "run", POLICIES) as running:
        yield running


@pytest.fixture(scope="module")
def pseudonymising(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("pseudonymising") / "run", PSEUDONYMS) as running:
        yield running


def bytes_tensor(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": f"You work for {MAIL}."},
        {"role": "user", "content": [{"type": "text", "text": f"I am {MAIL}."}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": MAIL})}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": f"Sent to {MAIL}"},
        {"role": "user", "content": f"Thanks! {MAIL}"},
    ]
}
TENSOR: dict[str, Any] = {"name": "TEXT", "shape": [2, 1], "datatype": "BYTES"}


@pytest.mark.parametrize(
    ("path", "body", "finds"),
    [
        ("/v1/chat/completions", {"model": "openai", "user": MAIL, **CHAT}, 6),
        ("/v1/chat/completions", {"model": "triton", **CHAT}, 4),  # its prompt is rendered here, without tool calls
        ("/v1/completions", {"model": "openai", "prompt": ["x", f"to {MAIL}"], "suffix": MAIL}, 2),
        ("/v1/completions", {"model": "triton", "prompt": f"to {MAIL}"}, 1),
        ("/v1/embeddings", {"model": "openai", "input": [MAIL, "x", MAIL]}, 2),
        ("/v1/embeddings", {"model": "kserve", "input": [MAIL, "x"]}, 1),
        ("/v2/models/kserve/infer", {"inputs": [{**TENSOR, "data": [["x"], [MAIL]]}]}, 1),
    ],
)
def test_what_a_model_server_receives(redacting: World, path: str, body: dict[str, Any], finds: int) -> None:
    redacting.upstream.script = answers(500, b"{}")
    redacting.post(path, body)
    assert MAIL.encode() not in redacting.received
    assert redacting.received.count(SHOWN) >= finds


def test_binary_tensors_of_text(redacting: World) -> None:
    binary = bytes_tensor("é", MAIL)
    header = {"inputs": [{**TENSOR, "parameters": {"binary_data_size": len(binary)}}]}
    encoded = json.dumps(header).encode()
    redacting.upstream.script = answers(200, b'{"outputs":[]}')
    length = {"inference-header-content-length": str(len(encoded))}
    answer = redacting.post("/v2/models/kserve/infer", encoded + binary, **length)
    assert answer.status_code == 200
    assert redacting.received.endswith(bytes_tensor("é", SHOWN.decode()))
    seen = dict(redacting.upstream.seen[-1].headers)
    told = json.loads(redacting.received[: int(seen["inference-header-content-length"])])
    size = told["inputs"][0]["parameters"]["binary_data_size"]
    assert size == len(bytes_tensor("é", SHOWN.decode()))


def test_token_ids_are_refused(redacting: World) -> None:
    for path, body in (("/v1/embeddings", {"input": [1, 2]}), ("/v1/completions", {"prompt": [[1], [2]]})):
        answer = redacting.post(path, {"model": "openai", **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_value")


def test_answers_whole_and_streamed(redacting: World) -> None:
    text = f"Write to {MAIL}, or to nobody."
    client = redacting.gateway.openai()
    redacting.upstream.script = answers(200, whole(text))
    said = client.chat.completions.create(model="openai", messages=[{"role": "user", "content": "Who?"}])
    assert said.choices[0].message.content == text.replace(MAIL, SHOWN.decode())
    redacting.upstream.script = stream(*map(content, text), content("", "stop"), DONE)
    pieces = client.chat.completions.create(model="openai", messages=[{"role": "user", "content": "Who?"}], stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text.replace(MAIL, SHOWN.decode())


def test_pseudonyms_come_back_to_the_official_client(pseudonymising: World) -> None:
    def echo(call: Call) -> None:
        said = json.loads(call.seen.body)["messages"][-1]["content"]
        arguments = json.dumps({"to": said})
        calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "send", "arguments": ""}}]
        deltas: list[dict[str, Any]] = [{"content": letter} for letter in f"To {said} and bob@example.org"]
        deltas += [{"tool_calls": calls}]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": letter}}]} for letter in arguments]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
        events = [
            b"data: " + json.dumps({"id": "x", "model": "x", "choices": [one]}).encode() + b"\n\n" for one in choices
        ]
        stream(*events, DONE)(call)

    pseudonymising.upstream.script = echo
    client = pseudonymising.gateway.openai()
    with client.chat.completions.stream(model="openai", messages=[{"role": "user", "content": MAIL}]) as pieces:
        message = pieces.get_final_completion().choices[0].message
    assert MAIL.encode() not in pseudonymising.received
    assert message.content == f"To {MAIL} and <EMAIL_ADDRESS>"
    assert message.tool_calls is not None
    assert json.loads(message.tool_calls[0].function.arguments) == {"to": MAIL}


def _everything_written(world: World) -> Iterator[tuple[str, bytes]]:
    """Every file of the gateway's directory (logs, spool, tables of open exchanges, sockets apart), and Redis."""
    for path in world.gateway.directory.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
    with redis.Redis(unix_socket_path=str(world.gateway.redis_socket)) as client:
        client.config_set("rdbcompression", "no")
        client.save()
        directory = client.config_get("dir")["dir"]
        name = client.config_get("dbfilename")["dbfilename"]
        yield "redis", pathlib.Path(directory, name).read_bytes()


def test_nothing_of_it_is_left_anywhere(pseudonymising: World) -> None:
    """Good and bad requests, refusals, failures and broken-off streams; then every byte that was written."""
    world, user = pseudonymising, [{"role": "user", "content": f"I am {MAIL}"}]
    world.upstream.script = answers(200, whole(f"You are {MAIL}, or someone else"))
    assert world.post("/v1/chat/completions", {"model": "openai", "messages": user}).status_code == 200
    assert world.post(f"/v1/chat/completions?{MAIL}", {"model": "openai", "messages": user}).status_code == 200
    bad: list[dict[str, Any] | bytes] = [
        {"model": "openai", "messages": [{"role": MAIL, "content": MAIL}]},
        {"model": "openai", "messages": user, "tool_choice": MAIL},
        {"model": "openai", "messages": user, "max_tokens": 10**6},
        {"model": "no-such-model", "messages": user},
        {"model": "openai", "messages": user, "logit_bias": {MAIL: 1000}},
        json.dumps({"model": "openai", "messages": user}).encode()[:-1],
    ]
    for body in bad:
        answer = world.post("/v1/chat/completions", body)
        assert answer.status_code in (400, 404)
        assert MAIL not in answer.text
    assert (
        world.post("/v1/chat/completions", {"model": "openai", "messages": user}, authorization="x").status_code == 401
    )
    narrow = {"authorization": f"Bearer {NARROW_KEY}"}
    assert world.post("/v1/chat/completions", {"model": "triton", "messages": user}, **narrow).status_code == 403
    world.upstream.script = answers(500, json.dumps({"error": {"message": f"can't read {MAIL}"}}).encode())
    assert world.post("/v1/chat/completions", {"model": "openai", "messages": user}).status_code >= 500
    world.upstream.script = stream(*map(content, f"You are {MAIL}, or"), then=hang)
    left = world.upstream.left
    body = {"model": "openai", "messages": user, "stream": True}
    with world.gateway.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_raw())
        table = b"".join(data for name, data in _everything_written(world) if name.endswith(".exchanges"))
        assert b'"model":"openai"' in table, "what is known of an exchange while it is open is written, too"
        assert MAIL.encode() not in table
    assert world.upstream.was_left(left)
    assert wait_until(lambda: any(event["termination"] == "CANCELLED" for event in world.gateway.books.events()))
    assert wait_until(
        lambda: any(b"enterprise" in data for name, data in _everything_written(world) if name == "redis")
    )
    written = dict(_everything_written(world))
    assert any("access.log" in name and data for name, data in written.items())
    assert [name for name, data in written.items() if re.search(MAIL.replace(".", r"\.").encode(), data)] == []
    assert [name for name, data in written.items() if b"zebulon" in data.lower()] == []


def test_what_was_done_is_told_in_numbers(redacting: World) -> None:
    redacting.upstream.script = answers(200, whole(f"You are {MAIL}"))
    labels = {"entity": "EMAIL_ADDRESS", "action": "redact", "mode": "enforce"}
    counts = [
        redacting.gateway.books.metric("extproc_pii_found_total", direction=way, **labels)
        for way in ("request", "response")
    ]
    with redacting.gateway.books.accounted() as entries:
        redacting.post(
            "/v1/chat/completions", {"model": "openai", "messages": [{"role": "user", "content": f"{MAIL} {MAIL}"}]}
        )
    assert entries.only["redacted"] == 3
    now = [
        redacting.gateway.books.metric("extproc_pii_found_total", direction=way, **labels)
        for way in ("request", "response")
    ]
    assert [after - earlier for after, earlier in zip(now, counts, strict=True)] == [2, 1]
    log = redacting.gateway.directory / "access.log"
    assert wait_until(lambda: json.loads(log.read_text().splitlines()[-1])["redacted"] == 3)


NAMES = """
policies:
  redact:
    mode: enforce
    names: true
    requests: {action: allow}
    responses: {names: {streams: true}}
"""


def test_names_in_answers_whole_and_streamed(tmp_path: pathlib.Path) -> None:
    """By the real encoder, which reads sentence by sentence whichever way the answer comes."""
    text = f"I spoke to Harold Finch at noon. He lives in Manchester now, he said, and reads {MAIL}. Good night!"
    with world(tmp_path / "run", NAMES) as naming:
        client = naming.gateway.openai()
        naming.upstream.script = answers(200, whole(text))
        asked: Any = {"model": "openai", "messages": [{"role": "user", "content": "Who?"}]}
        said = client.chat.completions.create(**asked).choices[0].message.content
        naming.upstream.script = stream(*map(content, text), content("", "stop"), DONE)
        pieces = [
            piece.choices[0].delta.content or "" for piece in client.chat.completions.create(**asked, stream=True)
        ]
        assert said == "".join(pieces)
        assert "Finch" not in said
        assert "<PERSON>" in said
        assert "reads <EMAIL_ADDRESS>." in said
        assert len([piece for piece in pieces if piece]) > 1, "it came by sentences, not at its end"
