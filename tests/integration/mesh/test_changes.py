"""A changed configuration reaches a running Envoy without a restart and without a failed request."""

import os
import pathlib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from extproc.mesh.xds import STAY_S
from tests.helpers.gateways import Gateway, configuration, started
from tests.helpers.processes import wait_until
from tests.helpers.upstreams import EchoServer

CHANGES = 20
PATIENCE_S = 30
"""Clients and upstreams share this process with what generates configurations: a second of silence means nothing."""
Upstreams = tuple[EchoServer, EchoServer]


@pytest.fixture
def own_gateway(upstreams: Upstreams, tmp_path: pathlib.Path) -> Iterator[Gateway]:
    yield from started(tmp_path, upstreams, patience_s=PATIENCE_S)


class Load:
    """Requests one after the other, on several connections, until it is stopped."""

    def __init__(self, gateway: Gateway, connections: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self._url = f"http://127.0.0.1:{gateway.port}/v1/x"
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=2 * PATIENCE_S) as client:
            while not self._stopping.is_set():
                try:
                    self.statuses[client.post(self._url, json={"a": 1}).status_code] += 1
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))


def servers(gateway: Gateway, requests: int, **headers: str) -> Counter[str]:
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", headers=headers) as client:
        return Counter(client.post("/v1/x", json={}).json()["server"] for _ in range(requests))


def text(upstreams: Upstreams, weights: tuple[int, int], more: str = "") -> str:
    return configuration(upstreams[0].port, upstreams[1].port, weights=weights, more=more, patience_s=PATIENCE_S)


def new_pool(port: int) -> str:
    return f"""
        new:
          dialect: openai
          model: x
          clusters: {{b: {{endpoints: ["127.0.0.1:{port}"]}}}}
          health: {{timeout_s: 5}}
    """


def test_weights_change_under_load_without_an_error(own_gateway: Gateway, upstreams: Upstreams) -> None:
    load = Load(own_gateway)
    for change in range(CHANGES):
        own_gateway.change(text(upstreams, (change % 10, 10)))
        time.sleep(0.05)
    own_gateway.change(text(upstreams, (0, 1)))
    updates = "http.gateway.rds.extproc.config_reload"
    assert wait_until(lambda: own_gateway.stat(updates) > CHANGES // 2)
    assert wait_until(lambda: servers(own_gateway, 10) == {"b": 10})
    load.stop()
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert load.statuses[200] > 100
    assert own_gateway.stat("http.gateway.rds.extproc.update_rejected") == 0


def test_the_split_follows_the_weights(own_gateway: Gateway, upstreams: Upstreams) -> None:
    own_gateway.change(text(upstreams, (9, 1)))
    assert wait_until(lambda: own_gateway.stat("http.gateway.rds.extproc.config_reload") > 1)
    split = servers(own_gateway, 1000)
    assert 870 <= split["a"] <= 930  # 0.9 of 1000, give or take three standard deviations


def test_weights_change_through_the_admin_interface_too(own_gateway: Gateway) -> None:
    own_gateway.admin("/runtime_modify?extproc.weights.demo.demo/a/first=0", "POST")
    assert wait_until(lambda: servers(own_gateway, 20) == {"b": 20})


def test_a_pool_comes_and_goes_under_load(own_gateway: Gateway, upstreams: Upstreams) -> None:
    load = Load(own_gateway)
    own_gateway.change(text(upstreams, (1, 1), new_pool(upstreams[1].port)))
    url = f"http://127.0.0.1:{own_gateway.port}/v1/x"
    assert wait_until(lambda: httpx.post(url, headers={"x-test-pool": "new"}, json={}).status_code == 200)
    updates = "http.gateway.rds.extproc.config_reload"
    before = own_gateway.stat(updates)
    own_gateway.change(text(upstreams, (1, 1)))
    assert wait_until(lambda: own_gateway.stat(updates) > before)
    # It stays, for requests that were on their way, and for a service that is slower to learn.
    assert httpx.post(url, headers={"x-test-pool": "new"}, json={}).status_code == 200
    own_gateway.change(text(upstreams, (1, 2)))
    assert wait_until(lambda: own_gateway.stat(updates) > before + 1)
    assert httpx.post(url, headers={"x-test-pool": "new"}, json={}).status_code == 200
    own_gateway.change(text(upstreams, (1, 1)), later_s=2 * STAY_S)
    assert wait_until(lambda: httpx.post(url, headers={"x-test-pool": "new"}, json={}).status_code == 404)
    assert wait_until(lambda: "new/b::" not in own_gateway.admin("/clusters"))
    load.stop()
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_a_request_is_routed_by_the_table_that_was_there_when_it_came(
    own_gateway: Gateway, upstreams: Upstreams
) -> None:
    """And it is told to the service which that was, so a pool that Envoy learns of meanwhile is of no use to it."""
    finish = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"{"
        assert finish.wait(PATIENCE_S)
        yield b"}"

    url = f"http://127.0.0.1:{own_gateway.port}/v1/x"
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(httpx.post(url, headers={"x-test-pool": "new"}, content=slowly(), timeout=60).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert wait_until(lambda: own_gateway.stat("http.gateway.downstream_rq_active") == 1)
    own_gateway.change(text(upstreams, (1, 1), new_pool(upstreams[1].port)))
    assert wait_until(lambda: httpx.post(url, headers={"x-test-pool": "new"}, json={}).status_code == 200)
    finish.set()
    asking.join()
    assert statuses == [404]


def test_no_route_leads_to_servers_that_envoy_has_not_met_yet(own_gateway: Gateway, upstreams: Upstreams) -> None:
    """It keeps a new cluster back until its servers' health was checked once, and this server is slow to say."""
    slow = EchoServer("slow")
    slow.health_delay_s = 1.0
    writing = threading.Thread(target=own_gateway.change, args=(text(upstreams, (1, 1), new_pool(slow.port)),))
    url = f"http://127.0.0.1:{own_gateway.port}/v1/x"
    statuses = []
    writing.start()
    while 200 not in statuses:
        statuses.append(httpx.post(url, headers={"x-test-pool": "new"}, json={}).status_code)
        time.sleep(0.02)
    writing.join()
    slow.close()
    assert set(statuses) == {404, 200}  # no route yet, and then one that leads somewhere


def test_the_command_writes_what_a_running_envoy_follows(
    own_gateway: Gateway, upstreams: Upstreams, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text(upstreams, (0, 1)))
    written = write_with_command(own_gateway, file)
    assert (written.returncode, written.stderr) == (0, "")
    assert written.stdout.splitlines() == [str(own_gateway.bootstrap)]
    assert wait_until(lambda: servers(own_gateway, 20) == {"b": 20})
    file.write_text(file.read_text().replace("pool: demo", "pool: nonsense"))
    refused = write_with_command(own_gateway, file)
    assert (refused.returncode, "nonsense" in refused.stderr) == (1, True)
    assert servers(own_gateway, 20) == {"b": 20}


def write_with_command(gateway: Gateway, file: pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "extproc", "envoy", "--xds-dir", str(gateway.bootstrap.parent), str(file)]
    environment = os.environ | gateway.variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_same_configuration_again_changes_nothing(own_gateway: Gateway) -> None:
    before = own_gateway.stat("http.gateway.rds.extproc.update_attempt")
    own_gateway.change(own_gateway.text)
    time.sleep(0.3)
    assert own_gateway.stat("http.gateway.rds.extproc.update_attempt") == before
