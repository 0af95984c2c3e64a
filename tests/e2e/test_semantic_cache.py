"""The semantic cache through real Envoy, service and Redis, with the real encoder and verifier."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.helpers.cached import Cached, cached, choice, whole
from tests.helpers.pages import Page
from tests.helpers.scripted_upstream import answers
from tests.helpers.semantic import verifier_folder

ASKED = "How do I disable two-factor authentication?"
PARAPHRASED = "How can I turn off two-factor authentication?"
NEAR_MISS = "How do I enable two-factor authentication?"


def policies(**more: Any) -> str:
    """The page's, and what a slow machine and these questions need."""
    shown = yaml.safe_load(Page("semantic-cache").blocks("yaml")[0])["policies"]
    shown["semantic_cache"] |= {"threshold": 0.9, "deadline_s": 5, "debug_headers": True, **more}
    return yaml.safe_dump(shown)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    verifier_folder()
    with cached(tmp_path_factory.mktemp("semantic") / "gateway", policies()) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def forgotten(running: Cached) -> None:
    running.redis.flush()


def ask(gateway: Cached, *turns: str, key: str = "ann", headers: dict[str, str] | None = None, **more: Any) -> Any:
    """One chat: turns of user and assistant by turns, the last one the user's."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)]
    body = {"model": "talker", "temperature": 0, "messages": messages, **more}
    url = f"{gateway.gateway.base_url}/chat/completions"
    answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {key}", **(headers or {})}, timeout=30)
    gateway.settled()
    assert answer.status_code == 200, answer.text
    return answer


def result(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-extproc-cache")


def report(gateway: Cached, response: str, *, key: str = "ann", **said: Any) -> httpx.Response:
    url = f"{gateway.gateway.base_url}/feedback"
    said = said or {"thumbs": "down"}
    answer = httpx.post(url, json={"id": response, **said}, headers={"authorization": f"Bearer {key}"}, timeout=30)
    gateway.settled()
    return answer


def says(gateway: Cached, text: str) -> None:
    gateway.upstream.script = answers(200, whole(choice(text)))


def test_a_paraphrase_gets_the_answer(running: Cached) -> None:
    says(running, "  Settings, Security\n")
    calls = running.calls
    assert result(ask(running, ASKED)) == "miss"
    hit = ask(running, PARAPHRASED)
    assert result(hit) == "semantic"
    assert hit.json()["choices"][0]["message"]["content"] == "  Settings, Security\n"
    assert 0.9 < float(hit.headers["x-extproc-cache-similarity"]) < 1
    assert "served" in hit.headers["x-extproc-cache-debug"]
    assert int(hit.headers["age"]) >= 0
    assert running.calls == calls + 1
    event = running.events()[-1]
    assert (event["cache"], event["saved_tokens"]) == ("semantic", 11)
    streamed = ask(running, PARAPHRASED, stream=True)
    assert result(streamed) == "semantic"
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_a_near_miss_does_not(running: Cached) -> None:
    says(running, "Settings, Security")
    ask(running, ASKED)
    missed = ask(running, NEAR_MISS)
    assert result(missed) == "miss"
    assert "x-extproc-cache-similarity" not in missed.headers
    assert "opposite" in missed.headers["x-extproc-cache-debug"]
    assert ASKED not in str(missed.headers)
    assert running.metric("extproc_cache_semantic_candidates_total", 'gate="opposite"') >= 1


def test_tenants_are_apart(running: Cached) -> None:
    says(running, "red's")
    ask(running, ASKED, key="ann")
    assert result(ask(running, PARAPHRASED, key="eve")) == "miss"
    assert result(ask(running, PARAPHRASED, key="bob")) == "semantic"


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 0.5, "seed": 1},
        {"max_tokens": 77},
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]},
        {"headers": {"x-extproc-cache-namespace": "apart"}},
    ],
)
def test_all_else_has_to_be_the_same(running: Cached, other: dict[str, Any]) -> None:
    says(running, "Settings, Security")
    ask(running, ASKED)
    assert result(ask(running, PARAPHRASED, **other)) == "miss"


def test_another_history_never_hits(running: Cached) -> None:
    says(running, "yes")
    ask(running, "I use Signal", "Fine.", ASKED)
    assert result(ask(running, "I use Gmail", "Fine.", PARAPHRASED)) == "miss"
    assert result(ask(running, PARAPHRASED)) == "miss"
    assert result(ask(running, "I use Signal", "Fine.", PARAPHRASED)) == "semantic"


def test_who_wants_a_fresh_answer_gets_one(running: Cached) -> None:
    says(running, "Settings, Security")
    ask(running, ASKED)
    assert result(ask(running, PARAPHRASED, headers={"cache-control": "no-cache"})) == "miss"
    assert result(ask(running, PARAPHRASED, headers={"cache-control": "no-store"})) == "bypass"


def test_a_wrong_hit_is_reported_and_goes(running: Cached) -> None:
    says(running, "wrong")
    ask(running, ASKED)
    hit = ask(running, PARAPHRASED)
    assert result(hit) == "semantic"
    response = hit.json()["id"]
    assert report(running, response, key="eve").status_code == 200  # another team's word changes nothing
    assert result(ask(running, PARAPHRASED)) == "semantic"
    assert report(running, response, thumbs="up").status_code == 200
    assert result(ask(running, PARAPHRASED)) == "semantic"
    said = report(running, response)
    assert said.json() == {"object": "feedback", "id": response.removeprefix("chatcmpl-"), "score": 0.0}
    says(running, "right")
    assert result(ask(running, ASKED)) == "miss"
    # The threshold around the question is now above what was wrong.
    again = ask(running, PARAPHRASED)
    assert result(again) == "miss"
    assert "learned" in again.headers["x-extproc-cache-debug"]
    assert result(ask(running, ASKED)) == "hit"


def test_a_wrong_exact_hit_goes_too(running: Cached) -> None:
    says(running, "wrong")
    ask(running, ASKED)
    hit = ask(running, ASKED)
    assert result(hit) == "hit"
    report(running, hit.json()["id"], score=0.1)
    assert result(ask(running, ASKED)) == "miss"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id":"x"}', b'{"id":"x","thumbs":"down","score":1}', b'{"id":1}'])
def test_feedback_that_means_nothing(running: Cached, body: bytes) -> None:
    url = f"{running.gateway.base_url}/feedback"
    refused = httpx.post(url, content=body, headers={"authorization": "Bearer ann"})
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"


def test_feedback_needs_a_key(running: Cached) -> None:
    refused = httpx.post(f"{running.gateway.base_url}/feedback", json={"id": "x", "thumbs": "up"})
    assert refused.status_code == 401


def test_an_expired_answer_is_no_longer_found(running: Cached) -> None:
    says(running, "Settings, Security")
    ask(running, ASKED)
    client = running.redis.client()
    (entry,) = [key for key in client.keys("*") if b":e:" in key]
    client.delete(entry)  # as Redis does when its time has come
    assert result(ask(running, PARAPHRASED)) == "miss"
    assert ask(running, PARAPHRASED).json()["choices"]
    client.close()


def test_without_redis_requests_go_on(running: Cached) -> None:
    says(running, "fresh")
    running.redis.pause()
    try:
        answer = ask(running, PARAPHRASED)
        assert json.loads(answer.content)["choices"][0]["message"]["content"] == "fresh"
    finally:
        running.redis.resume()


NO_ENCODER = """
encoder: {backend: triton, triton: {address: "127.0.0.1:1"}}
"""


def test_without_the_encoder_requests_go_on(tmp_path: pathlib.Path) -> None:
    verifier_folder()
    with cached(tmp_path / "gateway", policies(), more=NO_ENCODER) as gateway:
        says(gateway, "fresh")
        first = ask(gateway, ASKED)
        assert result(first) == "miss"
        assert "semantic_cache" in first.headers["x-extproc-degraded"]
        assert result(ask(gateway, ASKED)) == "hit"  # the exact cache needs no encoder
        assert result(ask(gateway, PARAPHRASED)) == "miss"


def test_the_shadow_serves_nothing(tmp_path: pathlib.Path) -> None:
    shadow = policies(mode="shadow")
    verifier_folder()
    with cached(tmp_path / "gateway", shadow) as gateway:
        says(gateway, "fresh")
        ask(gateway, ASKED)
        near = ask(gateway, PARAPHRASED)
        assert result(near) == "miss"
        assert "x-extproc-cache-similarity" not in near.headers
        assert gateway.metric("extproc_cache_semantic_candidates_total", 'gate="served"') == 1
