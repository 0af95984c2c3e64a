"""The exact cache through real Envoy, service and Redis, with the official client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.cached import LIMITS, POLICIES, Cached, cached, choice, chunk, embed, usage_chunk, whole
from tests.helpers.scripted_upstream import Script, answers, stream

DONE = b"data: [DONE]\n\n"
TEXT = "  two\n\n spaces  and\ttabs … 😀\r\n"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    with cached(tmp_path_factory.mktemp("cached") / "gateway", POLICIES + LIMITS) as gateway:
        yield gateway


def streamed_or_whole(pieces: list[str], usage: tuple[int, int] = (9, 4)) -> Script:
    """The same answer, as it is asked for."""

    def script(call: Any) -> None:
        if b'"stream":true' in call.seen.body:
            events = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
            stream(*events, chunk({}, "stop"), usage_chunk(*usage), DONE)(call)
        else:
            call.answer(200, whole(choice("".join(pieces)), prompt=usage[0], completion=usage[1]))

    return script


def ask(gateway: Cached, prompt: str, *, key: str = "ann", headers: dict[str, str] | None = None, **more: Any) -> Any:
    """The raw answer of one chat at temperature 0, once it is kept (or not)."""
    body: dict[str, Any] = {
        "model": "talker",
        "temperature": 0,
        "messages": [{"role": "user", "content": prompt}],
        **more,
    }
    url = f"{gateway.gateway.base_url}/chat/completions"
    answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {key}", **(headers or {})}, timeout=30)
    gateway.settled()
    return answer


def result(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-extproc-cache")


@pytest.mark.parametrize("stored_streamed", [False, True])
@pytest.mark.parametrize("asked_streamed", [False, True])
def test_an_answer_comes_back_as_it_is_asked_for(running: Cached, stored_streamed: bool, asked_streamed: bool) -> None:
    pieces = [TEXT[:7], TEXT[7:9], TEXT[9:]]
    running.upstream.script = streamed_or_whole(pieces)
    client, prompt = running.openai(), f"four {stored_streamed} {asked_streamed}"
    calls = running.calls

    def chat(streamed: bool) -> tuple[str, Any, Any]:
        asked = client.chat.completions.with_raw_response.create(
            model="talker", messages=[{"role": "user", "content": prompt}], temperature=0, stream=streamed,
            **({"stream_options": {"include_usage": True}} if streamed else {}),
        )  # fmt: skip
        if not streamed:
            answer = asked.parse()
            return answer.choices[0].message.content, answer, asked.headers
        chunks = list(asked.parse())
        assert chunks[-1].usage is not None
        text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        reasons = [one.choices[0].finish_reason for one in chunks if one.choices and one.choices[0].finish_reason]
        assert reasons == ["stop"]
        return text, chunks[-1], asked.headers

    first_text, first, first_headers = chat(stored_streamed)
    running.settled()
    before_s = int(time.time())
    text, answer, headers = chat(asked_streamed)
    assert text == first_text == TEXT
    assert running.calls == calls + 1
    assert (first_headers["x-extproc-cache"], headers["x-extproc-cache"]) == ("miss", "hit")
    assert "age" not in first_headers
    assert 0 <= int(headers["age"]) <= 5
    assert answer.id.startswith("chatcmpl-")
    assert answer.id != first.id
    assert answer.id.removeprefix("chatcmpl-") == headers["x-request-id"]
    assert answer.created >= before_s
    assert answer.model == "talker"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 4, 13)


def test_a_stream_is_replayed_in_its_pieces(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["a", "b ", " c"])
    ask(running, "pieces", stream=True)
    again = ask(running, "pieces", stream=True)
    assert result(again) == "hit"
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.text.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in again.text.split("\n\n")[:-2]]
    assert [one["choices"][0]["delta"].get("content") for one in events] == ["", "a", "b ", " c", None]
    assert all(one["id"] == events[0]["id"] and "usage" not in one for one in events)


CALL = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"at": "a  b"}'}}


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_calls_logprobs_and_several_choices(running: Cached, streamed: bool) -> None:
    logprobs = {"content": [{"token": "x", "logprob": -0.25, "bytes": [120], "top_logprobs": []}], "refusal": None}
    body = whole(
        choice("x", 0, logprobs=logprobs), choice(None, 1, "tool_calls", message={"tool_calls": [CALL]}), completion=7
    )
    running.upstream.script = answers(200, body)
    more = {"n": 2, "tools": [TOOL], "logprobs": True}
    first = ask(running, f"rich {streamed}", **more).json()
    again = ask(running, f"rich {streamed}", **more, stream=streamed)
    assert result(again) == "hit"
    if not streamed:
        for index in (0, 1):
            kept, came = again.json()["choices"][index], first["choices"][index]
            assert kept["message"]["content"] == came["message"]["content"]
            assert kept["message"].get("tool_calls") == came["message"].get("tool_calls")
            assert kept["finish_reason"] == came["finish_reason"]
            assert kept.get("logprobs") == came.get("logprobs")
        assert again.json()["usage"]["completion_tokens"] == 7
        return
    choices = [one for line in again.text.split("\n\n")[:-2] for one in json.loads(line[6:])["choices"]]
    calls = [call for one in choices for call in one["delta"].get("tool_calls", ())]
    assert calls == [{"index": 0, **CALL}]
    assert [one["logprobs"] for one in choices if one["logprobs"]] == [logprobs]
    assert {(one["index"], one["finish_reason"]) for one in choices if one["finish_reason"]} == {
        (0, "stop"), (1, "tool_calls"),
    }  # fmt: skip


def test_who_asks_for_the_same(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["same"])
    assert result(ask(running, "teams")) == "miss"
    assert result(ask(running, "teams", key="bob")) == "hit"
    assert result(ask(running, "teams", key="eve")) == "miss"
    assert result(ask(running, "teams", key="eve")) == "hit"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"user": "somebody", "metadata": {"a": "b"}}, "hit"),
        ({"temperature": 0.0, "top_p": None}, "hit"),
        ({"max_tokens": 50}, "miss"),
        ({"seed": 1}, "miss"),
        ({"stop": ["x"]}, "miss"),
        ({"tools": [TOOL]}, "miss"),
        ({"response_format": {"type": "json_object"}}, "miss"),
        ({"messages": [{"role": "user", "content": "params "}]}, "miss"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "params"}]}, "miss"),
        ({"temperature": 0.5}, "bypass"),
        ({"temperature": None}, "bypass"),
        ({"some_new_parameter": 1}, "bypass"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "bypass"),
        ({"model": "never"}, "bypass"),
        ({"model": "sampler", "temperature": 1}, "miss"),
        ({"temperature": 0.5, "seed": 3}, "miss"),
    ],
)
def test_what_is_the_same_request(running: Cached, more: dict[str, Any], expected: str) -> None:
    running.upstream.script = streamed_or_whole(["same"])
    ask(running, "params")
    assert result(ask(running, "params", **more)) == expected


def test_what_a_client_asks_of_the_cache(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["one"])
    ask(running, "controls")
    running.upstream.script = streamed_or_whole(["two"])

    def said(**headers: str) -> tuple[str | None, str]:
        answer = ask(running, "controls", headers={name.replace("_", "-"): value for name, value in headers.items()})
        return result(answer), answer.json()["choices"][0]["message"]["content"]

    assert said(cache_control="no-store") == ("bypass", "two")
    assert said() == ("hit", "one")
    assert said(cache_control="max-age=100") == ("hit", "one")
    assert said(x_extproc_cache_namespace="mine") == ("miss", "two")
    assert said(cache_control="no-cache") == ("miss", "two")
    assert said() == ("hit", "two")
    running.upstream.script = streamed_or_whole(["three"])
    time.sleep(1.1)
    assert said(cache_control="max-age=1") == ("miss", "three")
    assert said(cache_control="Max-Age=60, X") == ("hit", "three")
    assert said(x_extproc_cache_namespace="mine") == ("hit", "two")


def test_a_client_chooses_how_long_it_is_kept(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["short"])
    ask(running, "ttl", headers={"x-extproc-cache-ttl": "1"})
    assert result(ask(running, "ttl", headers={"x-extproc-cache-ttl": "1"})) == "hit"
    time.sleep(1.1)
    assert result(ask(running, "ttl")) == "miss"


@pytest.mark.parametrize(
    "headers",
    [{"x-extproc-cache-ttl": "0"}, {"x-extproc-cache-ttl": "soon"}, {"x-extproc-cache-namespace": "a/b {c}"}],
)
def test_headers_that_mean_nothing_are_refused(running: Cached, headers: dict[str, str]) -> None:
    answer = ask(running, "headers", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(headers))


@pytest.mark.parametrize(
    "script",
    [
        answers(200, whole(choice("cut", finish_reason="length"))),
        answers(200, whole(choice("", finish_reason="content_filter"))),
        answers(200, whole(choice("a"), choice("b", 1, "length"))),
        answers(500, b"{}"),
        answers(200, b"not json"),
        stream(chunk({"content": "a"})),
        stream(chunk({"content": "a"}), b'data: {"error": {"message": "x"}}\n\n'),
    ],
    ids=["length", "filter", "half", "error", "garbage", "truncated", "late-error"],
)
def test_what_is_no_good_answer_is_not_kept(running: Cached, script: Script, request: pytest.FixtureRequest) -> None:
    prompt = request.node.name
    running.upstream.script = script
    ask(running, prompt, stream=True)
    running.upstream.script = streamed_or_whole(["good"])
    again = ask(running, prompt)
    assert (result(again), again.json()["choices"][0]["message"]["content"]) == ("miss", "good")


def test_a_large_answer_is_kept_and_a_huge_one_is_not(running: Cached) -> None:
    large = "".join(chr(33 + (7 * at * at + at) % 90) for at in range(900_000))
    running.upstream.script = streamed_or_whole([large[:400_000], large[400_000:]])
    ask(running, "large")
    for streamed in (False, True):
        again = ask(running, "large", stream=streamed)
        assert result(again) == "hit"
        assert len(again.content) > 900_000
        assert large[-50:].replace("\\", "\\\\").replace('"', '\\"') in again.text
    running.upstream.script = streamed_or_whole([large, large])
    ask(running, "huge")
    assert result(ask(running, "huge")) == "miss"


def test_completions(running: Cached) -> None:
    body = {"id": "x", "object": "text_completion", "created": 1, "model": "up", "choices": [
        {"index": 0, "text": " once", "finish_reason": "stop", "logprobs": None}]}  # fmt: skip
    running.upstream.script = answers(200, json.dumps(body).encode())
    client = running.openai()
    first = client.completions.with_raw_response.create(model="talker", prompt="upon", temperature=0)
    running.settled()
    again = client.completions.with_raw_response.create(model="talker", prompt="upon", temperature=0)
    assert (first.headers["x-extproc-cache"], again.headers["x-extproc-cache"]) == ("miss", "hit")
    assert again.parse().choices[0].text == " once"
    assert again.parse().usage == first.parse().usage


def test_each_input_of_embeddings_is_kept_by_itself(running: Cached) -> None:
    running.upstream.script = embed
    client = running.openai()

    def vectors(inputs: list[str] | str, **more: Any) -> tuple[str, list[list[float]], int]:
        asked = client.embeddings.with_raw_response.create(
            model="talker", input=inputs, encoding_format="float", **more
        )
        running.settled()
        answer = asked.parse()
        assert [one.index for one in answer.data] == list(range(len(answer.data)))
        return asked.headers["x-extproc-cache"], [one.embedding for one in answer.data], answer.usage.prompt_tokens

    assert vectors(["a", "bb"])[:2] == ("miss", [[1, 0.1, 2], [2, 0.1, 2]])
    assert vectors(["bb", "a"])[:2] == ("hit", [[2, 0.1, 2], [1, 0.1, 2]])
    assert vectors("a")[:2] == ("hit", [[1, 0.1, 2]])
    calls = running.calls
    # Two are kept, with one token each by our count; the upstream says 100 for each of the others.
    said = vectors(["ccc", "a", "dddd", "bb", "ccc"])
    assert said == ("miss", [[3, 0.1, 3], [1, 0.1, 2], [4, 0.1, 3], [2, 0.1, 2], [3, 0.1, 3]], 302)
    assert running.calls == calls + 1
    assert json.loads(running.upstream.seen[-1].body)["input"] == ["ccc", "dddd", "ccc"]
    event = running.events()[-1]
    assert (event["cache"], event["prompt_tokens"], event["saved_tokens"]) == ("miss", 300, 2)
    assert vectors("ccc", dimensions=2)[0] == "miss"
    encoded = client.embeddings.create(model="talker", input="dddd", encoding_format="base64")
    assert running.calls == calls + 2
    assert isinstance(encoded.data[0].embedding, str)
    assert result(ask_embeddings(running, "uncounted", ["a", "b"])) == "bypass"
    assert result(ask_embeddings(running, "uncounted", "a")) == "miss"
    assert result(ask_embeddings(running, "uncounted", ["a"])) == "hit"


def ask_embeddings(gateway: Cached, model: str, inputs: Any) -> httpx.Response:
    url, headers = f"{gateway.gateway.base_url}/embeddings", {"authorization": "Bearer ann"}
    answer = httpx.post(url, json={"model": model, "input": inputs}, headers=headers)
    gateway.settled()
    return answer


def test_a_hit_is_on_record_and_costs_no_tokens(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["x"], usage=(9, 4))
    for _ in range(3):
        ask(running, "money")
    ask(running, "money", headers={"cache-control": "no-store"})
    told = [
        (one["cache"], one["prompt_tokens"], one["completion_tokens"], one["saved_tokens"], one["price_nano"])
        for one in running.events()[-4:]
    ]
    assert told == [("miss", 9, 4, 0, 13_000), *[("hit", 0, 0, 13, 0)] * 2, ("bypass", 9, 4, 0, 13_000)]
    assert all(one["termination"] == "COMPLETED" and one["status"] == 200 for one in running.events()[-4:])


def test_a_hit_is_a_request_and_no_header_is_a_way_around_limits(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["x"], usage=(9, 4))
    said = [ask(running, "limited", max_tokens=10, key="moe") for _ in range(3)]
    assert [result(one) for one in said] == ["miss", "hit", "hit"]
    assert [one.headers["x-ratelimit-remaining-requests"] for one in said] == ["3", "2", "1"]
    left = ask(running, "limited", max_tokens=10, key="moe", headers={"cache-control": "no-store"}).headers
    assert int(left["x-ratelimit-remaining-tokens"]) > 100_000 - 100  # one answer, and one reserved: no hits
    for headers in ({}, {"cache-control": "no-cache"}, {"cache-control": "no-store"}):
        refused = ask(running, "limited", max_tokens=10, key="moe", headers=headers)
        assert refused.status_code == 429
        assert "retry-after" in refused.headers
    assert result(ask(running, "limited", key="ann", max_tokens=10)) == "miss"


def test_what_is_kept_can_be_seen_and_purged(running: Cached) -> None:
    running.upstream.script = streamed_or_whole(["x"])
    running.cli("purge", "--all")
    ask(running, "purge")
    ask(running, "purge", headers={"x-extproc-cache-namespace": "other"})
    ask(running, "purge", key="eve")
    ask(running, "purge", model="sampler")
    groups = [json.loads(line) for line in running.cli("stats", "--json").splitlines()]
    held = {(one["tenant"], one["model"], one["namespace"]): one["entries"] for one in groups}
    assert held == {
        ("team:blue", "talker", ""): 1, ("team:red", "sampler", ""): 1,
        ("team:red", "talker", ""): 1, ("team:red", "talker", "other"): 1,
    }  # fmt: skip
    assert all(100 < one["bytes"] < 500 for one in groups)
    assert running.cli("stats").splitlines()[-1].split()[:2] == ["total", "4"]
    assert (
        running.cli("purge", "--tenant", "red", "--model", "talker", "--namespace", "other") == "1 answers forgotten\n"
    )
    assert result(ask(running, "purge")) == "hit"
    assert running.cli("purge", "--tenant", "team:red") == "2 answers forgotten\n"
    assert result(ask(running, "purge")) == "miss"
    assert result(ask(running, "purge", key="eve")) == "hit"
