"""Several worker processes: all serve, they are one to whoever looks, and one of them may die."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil
import pytest

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG
from tests.helpers.usage import Scrape, in_flight, log_lines, usage_events, usage_of

WORKERS = 4
QUICK = "[[demo:ttft_ms=0]][[demo:tpot_ms=0]][[demo:tokens=5]]"
LONG = "[[demo:tokens=500]]"


@pytest.fixture(scope="module")
def gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBeside]:
    directory = tmp_path_factory.mktemp("workers")
    gateway = GatewayBeside(_session_stack, directory, CONFIG.read_text(), workers=WORKERS)
    yield gateway
    gateway.close()


@pytest.fixture
def http(gateway: GatewayBeside, stack_key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {stack_key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30.0) as client:
        yield client


def workers(gateway: GatewayBeside) -> dict[int, psutil.Process]:
    """The worker processes by their number, the argument before the last."""
    assert gateway.service.pid is not None
    found = {}
    for child in psutil.Process(gateway.service.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which is one, too
            command = child.cmdline()
            if str(gateway.config_path) in command:
                found[int(command[-2])] = child
    return found


def chat(text: str, *, stream: bool = False) -> dict[str, object]:
    return {"model": "demo-llm", "stream": stream, "messages": [{"role": "user", "content": text}]}


def served(gateway: GatewayBeside) -> float:
    return Scrape(gateway.ports.service_admin).value("extproc_exchanges_total", termination="completed")


def test_all_serve_and_their_metrics_are_added_up(gateway: GatewayBeside, http: httpx.Client) -> None:
    before = served(gateway)
    envoy_before = requests_by_worker(gateway)
    answers = [http.post("/chat/completions", json=chat(QUICK)) for _ in range(40)]
    assert Counter(answer.status_code for answer in answers) == {200: 40}
    share = {worker: count - envoy_before[worker] for worker, count in requests_by_worker(gateway).items()}
    assert len(share) == WORKERS
    assert min(share.values()) > 0, share
    assert wait_until(lambda: in_flight(gateway.ports.service_admin) == 0)
    assert served(gateway) == before + 40
    ids = {event["id"] for event in usage_events(gateway.service.log)}
    assert {answer.headers["x-request-id"] for answer in answers} <= ids


def requests_by_worker(gateway: GatewayBeside) -> dict[str, int]:
    """As Envoy counted them."""
    page = httpx.get(f"http://127.0.0.1:{gateway.ports.gateway_admin}/clusters").text
    return {host: int(count) for host, count in re.findall(r"^extproc::(\S+)::rq_total::(\d+)$", page, re.MULTILINE)}


def test_keys_come_and_go_in_every_worker(gateway: GatewayBeside, stack: Stack) -> None:
    key = stack.create_key("for all workers")
    with httpx.Client(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}) as client:

        def statuses() -> set[int]:
            return {client.get("/models").status_code for _ in range(4 * WORKERS)}

        assert statuses() == {200}
        run_keys(stack, "revoke", key_id(stack, "for all workers"))
        assert wait_until(lambda: statuses() == {401}, 5.0)


def run_keys(stack: Stack, *arguments: str) -> str:
    place = ["--config", str(stack.settings.config), "--run-dir", str(stack.settings.run_dir)]
    command = [sys.executable, "-m", "extproc", "keys", *arguments, *place]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def key_id(stack: Stack, name: str) -> str:
    records = [json.loads(line) for line in run_keys(stack, "list", "--json").splitlines()]
    (found,) = [str(record["id"]) for record in records if record["name"] == name]
    return found


def test_one_that_is_killed_is_replaced_and_what_it_served_is_on_record(
    gateway: GatewayBeside, http: httpx.Client
) -> None:
    ids: list[str] = []
    broken: list[str] = []
    begun = threading.Semaphore(0)

    def stream() -> None:
        with http.stream("POST", "/chat/completions", json=chat(LONG, stream=True)) as answer:
            request_id = answer.headers["x-request-id"]
            ids.append(request_id)
            text = ""
            begun.release()
            try:
                for piece in answer.iter_text():
                    text += piece
            except httpx.RemoteProtocolError:
                pass
            if not text.endswith("data: [DONE]\n\n"):
                broken.append(request_id)

    threads = [threading.Thread(target=stream) for _ in range(2 * WORKERS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=20.0)
    assert wait_until(lambda: in_flight(gateway.ports.service_admin) == len(threads))
    before = workers(gateway)
    busiest = max(before, key=lambda number: len(before[number].net_connections("unix")))
    os.kill(before[busiest].pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert 0 < len(broken) < len(threads), "only the streams of the killed one break"
    ended = {request_id: usage_of(gateway.service.log, request_id) for request_id in ids}
    for request_id, event in ended.items():
        if request_id in broken:
            assert (event["termination"], event["reason"]) == ("INTERNAL_ERROR", "worker_died")
            assert (event["model"], event["pool"], event["team"]) == ("demo-llm", "demo", "local")
            assert event["prompt_tokens"] > 0
        else:
            assert event["termination"] == "COMPLETED"
    assert wait_until(lambda: len(workers(gateway)) == WORKERS and gateway.ready(), 20.0)
    assert workers(gateway)[busiest].pid != before[busiest].pid
    assert wait_until(lambda: in_flight(gateway.ports.service_admin) == 0)
    (line,) = [line for line in log_lines(gateway.service.log) if line["message"] == "worker died"]
    assert (line["worker"], line["exchanges_lost"]) == (busiest, len(broken))
    assert set(Counter(event["id"] for event in usage_events(gateway.service.log)).values()) == {1}


def test_the_others_go_on_while_one_is_gone(gateway: GatewayBeside, http: httpx.Client) -> None:
    """From the moment it is gone. What Envoy sends to a socket that is still open, of a process that is already being
    killed, may have been begun with and is not sent twice."""
    victim = workers(gateway)[0]
    victim.kill()
    victim.wait(10.0)
    statuses: list[int] = []

    def all_back() -> bool:
        statuses.append(http.post("/chat/completions", json=chat(QUICK)).status_code)
        now = workers(gateway).get(0)
        return now is not None and now.pid != victim.pid and gateway.ready()

    assert wait_until(all_back, 20.0)
    assert Counter(statuses) == {200: len(statuses)}
