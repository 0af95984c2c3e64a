"""What makes a key, and what makes another one."""

import json
from typing import Any

import pytest

from extproc import config
from extproc.config.balancing import ConsistentHash, HashBy
from extproc.dialects.interface import InferenceRequest, RequestHead, TextSegment
from extproc.dialects.registry import resolve
from extproc.errors import ConfigError
from extproc.principal import ANONYMOUS, Principal
from extproc.routing.affinity import affinity, leading_bytes

ANN = Principal("ann", "red", "pro", frozenset({"*"}))
BOB = Principal("bob", "red", "pro", frozenset({"*"}))
CARL = Principal("carl", "blue", "pro", frozenset({"*"}))
LONG = "word " * 40
BY_PREFIX = ConsistentHash(blocks=2, block_bytes=64)
BY_USER = ConsistentHash(by=HashBy.USER)
BY_HEADER = ConsistentHash(by=HashBy.HEADER, header="x-session")


def chat(text: str = "Hello!", **more: Any) -> InferenceRequest:
    head = RequestHead("POST", "/v1/chat/completions", {})
    api = resolve(head).api
    assert api is not None
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return api.parse(head, json.dumps(body).encode())


def key(
    settings: ConsistentHash,
    request: InferenceRequest,
    principal: Principal = ANN,
    headers: dict[str, str] | None = None,
    secret: bytes = b"a secret of sixteen",
) -> str | None:
    maker = affinity(settings, secret)
    assert maker is not None
    return maker.key(request, RequestHead("POST", "/", headers or {}), principal)


def test_a_key_is_sixteen_hex_digits_and_needs_the_secret() -> None:
    first = key(BY_PREFIX, chat(LONG))
    assert first is not None
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert key(BY_PREFIX, chat(LONG), secret=b"another secret") != first


def test_a_prompt_shorter_than_its_blocks_has_none() -> None:
    assert key(BY_PREFIX, chat("x" * 127)) is None
    assert key(BY_PREFIX, chat("x" * 128)) is not None


def test_tenants_with_the_same_prompt_meet() -> None:
    assert key(BY_PREFIX, chat(LONG), ANN) == key(BY_PREFIX, chat(LONG), CARL)


def test_a_prompt_cache_key_parts_what_begins_alike() -> None:
    keys = {key(BY_PREFIX, chat(LONG, **more)) for more in ({}, {"prompt_cache_key": "a"}, {"prompt_cache_key": "b"})}
    assert len(keys) == 3


def test_by_principal() -> None:
    by = ConsistentHash(by=HashBy.PRINCIPAL)
    assert key(by, chat("a"), ANN) == key(by, chat("b"), ANN) != key(by, chat("a"), BOB)
    assert key(by, chat("a"), ANONYMOUS) is None


def test_by_user_apart_for_each_team() -> None:
    assert key(BY_USER, chat(user="u"), ANN) == key(BY_USER, chat(user="u"), BOB)
    assert key(BY_USER, chat(user="u"), ANN) != key(BY_USER, chat(user="u"), CARL)
    assert key(BY_USER, chat(safety_identifier="u"), ANN) == key(BY_USER, chat(user="u"), ANN)
    assert key(BY_USER, chat()) is None
    assert key(BY_USER, chat(user="")) is None


def test_by_header() -> None:
    assert key(BY_HEADER, chat("a"), headers={"x-session": "1"}) == key(
        BY_HEADER, chat("b"), headers={"x-session": "1"}
    )
    assert key(BY_HEADER, chat(), headers={"x-session": "1"}) != key(BY_HEADER, chat(), headers={"x-session": "2"})
    assert key(BY_HEADER, chat(), headers={"x-session": ""}) is None
    assert key(BY_HEADER, chat()) is None


def test_what_is_said_by_another_role_is_another_prompt() -> None:
    def leading(role: str) -> bytes | None:
        return leading_bytes([TextSegment(role, LONG, ())], 64)

    assert leading("system") != leading("user")


def test_a_byte_that_is_no_text_is_as_good() -> None:
    assert key(BY_HEADER, chat(), headers={"x-session": "\udcff"}) != key(BY_HEADER, chat(), headers={"x-session": "?"})


POOL = 'dialect: openai, model: x, clusters: {c: {endpoints: ["127.0.0.1:1"]}}'


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("balancing: consistent_hash, consistent_hash: {by: header}", "`header` goes with `by: header`"),
        ("balancing: consistent_hash, consistent_hash: {header: x-a}", "`header` goes with `by: header`"),
        ("balancing: consistent_hash, consistent_hash: {by: header, header: x-extproc-a}", "can't send x-extproc-"),
        ("balancing: consistent_hash, consistent_hash: {by: header, header: X-A}", "header"),
        ("balancing: consistent_hash, consistent_hash: {blocks: 1}", "blocks"),
        ("balancing: consistent_hash, consistent_hash: {max_load_percent: 99}", "max_load_percent"),
        ("consistent_hash: {by: principal}", "balancing is weighted, which has no keys"),
    ],
)
def test_contradictions_are_refused(settings: str, message: str) -> None:
    text = (
        "keys: {hash_secret: 0123456789abcdef}\n"
        "models: {m: {pool: p, operations: [chat], context_window: 100}}\n"
        f"pools: {{p: {{{POOL}, {settings}}}}}\n"
    )
    with pytest.raises(ConfigError, match=message):
        config.parse(text, {}, {})
