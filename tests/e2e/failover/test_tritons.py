"""docs/failover.md is true, with real Tritons: the one that is killed costs no request, and serves again afterwards."""

import functools
import pathlib
import re
import threading
from collections import Counter
from collections.abc import Iterator

import httpx
import openai
import pytest

from extproc.stack.stack import TRITON_A, Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.failing import prompt
from tests.helpers.pages import Page
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG

PAGE = Page("failover")
CLIENTS = 6


@pytest.fixture(name="gateway")
def _gateway(_session_stack: Stack, tmp_path: pathlib.Path) -> Iterator[GatewayBeside]:
    text, found = re.subn(
        r"^  demo:\n.*?(?=^  encoder:\n)",
        lambda _: PAGE.blocks("yaml")[0],
        CONFIG.read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    assert found == 1
    gateway = GatewayBeside(_session_stack, tmp_path, text)
    yield gateway
    gateway.close()


def test_the_example(gateway: GatewayBeside, stack: Stack, stack_key: str) -> None:
    assert wait_until(lambda: PAGE.run(gateway, stack_key) == "200 demo\n")
    stack.process(TRITON_A).kill()
    assert PAGE.run(gateway, stack_key) == "200 reserve\n"
    stack.start(TRITON_A)
    assert wait_until(lambda: PAGE.run(gateway, stack_key) == "200 demo\n")


def test_a_triton_whose_model_died_and_that_is_still_ready(
    gateway: GatewayBeside, stack: Stack, stack_key: str
) -> None:
    with openai.OpenAI(base_url=gateway.base_url, api_key=stack_key, max_retries=0, timeout=20) as client:
        crashing = prompt("[[demo:crash-after=3]]")
        with pytest.raises((httpx.HTTPError, openai.APIError)):  # nothing more comes
            list(
                client.with_options(timeout=1).chat.completions.create(model="demo-llm", messages=crashing, stream=True)
            )
        for streams in (False, True):
            answer = client.chat.completions.with_raw_response.create(
                model="demo-llm", messages=prompt(""), max_tokens=2, stream=streams
            )
            assert answer.headers["x-extproc-pool"] == "reserve"
    stack.process(TRITON_A).kill()  # which only a restart repairs; `stack` starts it again


def test_a_fallback_comes_and_goes_while_everything_runs(gateway: GatewayBeside, stack: Stack, stack_key: str) -> None:
    with_fallback = gateway.config_path.read_text()
    without = re.sub(r"^    fallback:\n.*\n", "", with_fallback, flags=re.MULTILINE)
    stack.process(TRITON_A).kill()
    with openai.OpenAI(base_url=gateway.base_url, api_key=stack_key, max_retries=0, timeout=20) as client:

        def status() -> int:
            try:
                client.chat.completions.create(model="demo-llm", messages=prompt(""), max_tokens=2)
            except openai.APIStatusError as error:
                return error.status_code
            return 200

        def answers_with(expected: int) -> bool:
            return status() == expected

        assert status() == 200
        for text, expected in ((without, 503), (with_fallback, 200)):
            gateway.change(text)
            gateway.write_envoy()
            assert wait_until(functools.partial(answers_with, expected))


def test_a_triton_killed_under_load_costs_no_request(gateway: GatewayBeside, stack: Stack, stack_key: str) -> None:
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def load() -> None:
        with openai.OpenAI(base_url=gateway.base_url, api_key=stack_key, max_retries=0, timeout=20) as client:
            while not stop.is_set():
                try:
                    answer = client.chat.completions.with_raw_response.create(
                        model="demo-llm", messages=prompt(""), max_tokens=8
                    )
                    outcomes[answer.headers["x-extproc-pool"]] += 1
                except openai.APIError as error:
                    outcomes[f"{type(error).__name__}: {error}"] += 1

    clients = [threading.Thread(target=load) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        assert wait_until(lambda: outcomes["demo"] > 2 * CLIENTS)
        stack.process(TRITON_A).kill()
        assert wait_until(lambda: outcomes["reserve"] > 5 * CLIENTS)
        stack.start(TRITON_A)
        served = outcomes["demo"]
        assert wait_until(lambda: outcomes["demo"] > served + 2 * CLIENTS)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert set(outcomes) == {"demo", "reserve"}, outcomes
