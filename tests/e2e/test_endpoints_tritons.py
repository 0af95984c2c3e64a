"""Endpoints that the service chooses, before two real Tritons: a loaded one is left alone, and one that is killed under
load costs no request."""

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from extproc.stack.stack import TRITON_B, Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.failing import prompt
from tests.helpers.processes import wait_until
from tests.helpers.usage import usage_of

CONFIG = """
gateway:
  listen: 127.0.0.1:${EXTPROC_PORT}
  admin: 127.0.0.1:${EXTPROC_ENVOY_ADMIN_PORT}
service:
  listen: unix:${EXTPROC_RUN_DIR}/extproc.sock
  workers: ${EXTPROC_WORKERS}
  admin: 127.0.0.1:${EXTPROC_ADMIN_PORT}
  notice_s: 0
  drain_timeout_s: 5
redis: {url: "${REDIS_URL}"}
keys: {hash_secret: "${EXTPROC_KEY_SECRET}"}
polling: {interval_s: 0.2, stale_after_s: 1}
policies: {cache: {mode: off}}
models:
  least: {pool: least, operations: [chat], MODEL}
  gpu: {pool: gpu, operations: [chat], MODEL}
pools:
  least:
    dialect: triton-generate
    model: demo_llm
    balancing: least_tokens
    clusters: {CLUSTERS}
    health: {interval_s: 0.5}
    fallback: [{pool: reserve}]
  gpu: {dialect: triton-generate, model: demo_llm, balancing: gpu_aware, clusters: {CLUSTERS}}
  reserve:
    dialect: triton-generate
    model: demo_llm
    clusters: {a: {endpoints: ["127.0.0.1:${EXTPROC_TRITON_A_HTTP_PORT}"]}}
"""
MODEL = "tokenizer: {type: tiktoken, encoding: cl100k_base}, chat_template: chatml, context_window: 8192"
CLUSTERS = ", ".join(
    f'{name}: {{endpoints: ["127.0.0.1:${{{triton}_HTTP_PORT}}"], metrics: ["127.0.0.1:${{{triton}_METRICS_PORT}}"]}}'
    for name, triton in (("a", "EXTPROC_TRITON_A"), ("b", "EXTPROC_TRITON_B"))
)
RUNNING = 32  # as many sequences demo_llm runs at a time (its config.pbtxt)
QUEUED = 16
CLIENTS = 6


@pytest.fixture(name="gateway", scope="module")
def _gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBeside]:
    text = CONFIG.replace("MODEL", MODEL).replace("CLUSTERS", CLUSTERS)
    gateway = GatewayBeside(_session_stack, tmp_path_factory.mktemp("beside"), text, workers=2)
    yield gateway
    gateway.close()


@pytest.fixture(name="client")
def _client(gateway: GatewayBeside, stack: Stack, stack_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=stack_key, max_retries=0, timeout=30) as client:
        yield client


def places(gateway: GatewayBeside, client: openai.OpenAI, model: str, times: int) -> Counter[str]:
    """Which endpoints answer short requests, one after the other."""
    ids = []
    for _ in range(times):
        answer = client.chat.completions.with_raw_response.create(model=model, messages=prompt(""), max_tokens=2)
        ids.append(answer.headers["x-request-id"])
    return Counter(usage_of(gateway.service.log, one)["endpoint"] for one in ids)


@contextlib.contextmanager
def loaded(port: int) -> Iterator[None]:
    """Meanwhile a Triton has all it can do, and a queue behind it, of which the gateway knows nothing."""
    url = f"http://127.0.0.1:{port}/v2/models/demo_llm/generate_stream"
    stop = threading.Event()

    def work(number: int) -> None:
        body = {"text_input": f"[[demo:tokens=600]][[demo:tpot_ms=100]] {number}", "stream": True}
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            for _ in answer.iter_bytes():
                if stop.is_set():
                    return

    with ThreadPoolExecutor(RUNNING + QUEUED) as threads:
        for number in range(RUNNING + QUEUED):
            threads.submit(work, number)
        try:
            yield
        finally:
            stop.set()


def test_a_loaded_triton_is_left_alone(gateway: GatewayBeside, client: openai.OpenAI, stack: Stack) -> None:
    a, b = (f"127.0.0.1:{ports.http}" for ports in (stack.settings.ports.triton_a, stack.settings.ports.triton_b))
    assert wait_until(lambda: set(places(gateway, client, "gpu", 10)) == {a, b})
    with loaded(stack.settings.ports.triton_a.http):
        assert wait_until(lambda: set(places(gateway, client, "gpu", 10)) == {b}, 20.0)
    assert wait_until(lambda: a in places(gateway, client, "gpu", 10), 30.0)


def test_short_answers_go_where_no_long_one_is_made(
    gateway: GatewayBeside, client: openai.OpenAI, stack: Stack
) -> None:
    slowly = prompt("[[demo:tokens=2000]][[demo:tpot_ms=50]]")
    with client.chat.completions.create(model="least", messages=slowly, max_tokens=2000, stream=True) as stream:
        next(iter(stream))
        assert wait_until(lambda: len(places(gateway, client, "least", 10)) == 1)
    assert wait_until(lambda: len(places(gateway, client, "least", 10)) == 2)


def test_one_that_is_killed_under_load_costs_no_request(
    gateway: GatewayBeside, client: openai.OpenAI, stack: Stack
) -> None:
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                client.chat.completions.create(model="least", messages=prompt(""), max_tokens=8)
                outcomes["answered"] += 1
            except openai.APIError as error:
                outcomes[f"{type(error).__name__}: {error}"] += 1

    def more(than: int) -> bool:
        return outcomes.total() > than + 4 * CLIENTS

    with ThreadPoolExecutor(CLIENTS) as threads:
        for _ in range(CLIENTS):
            threads.submit(load)
        try:
            assert wait_until(lambda: more(0))
            stack.process(TRITON_B).kill()
            assert wait_until(functools.partial(more, outcomes.total()))
            stack.start(TRITON_B)
            assert wait_until(functools.partial(more, outcomes.total()))
        finally:
            stop.set()
    assert set(outcomes) == {"answered"}, outcomes
    assert wait_until(lambda: len(places(gateway, client, "least", 10)) == 2, 20.0)
