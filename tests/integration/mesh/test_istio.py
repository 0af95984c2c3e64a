"""EnvoyFilters as istiod would apply them, to Envoys as it configures them, which the real Envoy takes and serves."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from extproc import config, mesh
from extproc.stack.guardian import Guardian
from extproc.stack.process import Process
from tests.helpers.gateways import configuration
from tests.helpers.istio import Json, PatchedEnvoy, gateway_base, patched, sidecar_base
from tests.helpers.ports import free_base
from tests.helpers.processes import wait_until
from tests.helpers.upstreams import EchoServer
from tests.integration.test_envoy_config import assert_accepted

HOST = "ai.example.com"
REPOSITORY = pathlib.Path(__file__).parents[3]


@dataclass
class Istio:
    """A patched Envoy before the test processor and an upstream that is there for it alone."""

    port: int
    envoy: PatchedEnvoy
    upstream: EchoServer

    def ask(self, path: str = "/v1/x", host: str = HOST, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(
            f"http://127.0.0.1:{self.port}{path}", headers={"host": host, **named}, content=b"{}", timeout=20
        )


@pytest.fixture(scope="module")
def upstream() -> Iterator[EchoServer]:
    with contextlib.closing(EchoServer("model")) as server:
        yield server


@pytest.fixture(scope="module", params=mesh.Place)
def istio(
    request: pytest.FixtureRequest, upstream: EchoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Istio]:
    directory = tmp_path_factory.mktemp(request.param)
    base = free_base()
    variables = {
        "PORT": str(base),
        "ADMIN": str(base + 1),
        "SERVICE_ADMIN": str(base + 2),
        "LOG": str(directory / "log"),
    }
    text = configuration(upstream.port, upstream.port, on_failure="closed").replace(
        "unix:${SOCKET}", "127.0.0.1:${RPC}"
    )
    # Both clusters of `demo` would be the same server, which is refused.
    text = text.replace(f'b: {{weight: 1, endpoints: ["127.0.0.1:{upstream.port}"]}}', "", 1)
    loaded = config.parse(text, {}, {**variables, "RPC": str(base + 3)})
    command = (sys.executable, "-m", "tests.helpers.processors", f"127.0.0.1:{base + 3}")
    guardian = Guardian()
    env = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    processor = Process("processor", command, env, directory / "processor.log", guardian)
    processor.start()
    complete = patched(*_case(request.param, loaded, upstream, base))
    with contextlib.closing(PatchedEnvoy(directory, complete)) as envoy:
        stats = f"http://127.0.0.1:{base + 1}/clusters?filter=^extproc"
        assert wait_until(lambda: "::healthy" in httpx.get(stats).text)
        yield Istio(base, envoy, upstream)
    processor.kill()
    guardian.close()


def _case(place: mesh.Place, loaded: config.GatewayConfig, upstream: EchoServer, base: int) -> tuple[Json, Json, str]:
    if place is mesh.Place.GATEWAY:
        target = mesh.Target(place, 8080, host=HOST, labels={"istio": "ai-gateway"})
        return gateway_base(base, base + 1), mesh.envoy_filter(loaded, target), "GATEWAY"
    target = mesh.Target(place, upstream.port)
    return sidecar_base(base, base + 1, upstream.port), mesh.envoy_filter(loaded, target), "SIDECAR_INBOUND"


def test_envoy_takes_it_without_a_warning(istio: Istio) -> None:
    assert_accepted(istio.envoy.path)


def test_what_is_stamped_is_served(istio: Istio) -> None:
    answer = istio.ask()
    assert answer.status_code == 200, answer.text
    headers = dict(answer.json()["headers"])
    assert not [name for name in headers if name.startswith("x-extproc-")]
    assert headers["accept-encoding"] == "identity"
    assert answer.headers["server"] == "extproc"


@pytest.mark.parametrize("headers", [{}, {"x_extproc_pool": "demo"}, {"x_extproc_pool": "solo"}])
def test_what_is_not_stamped_reaches_nobody(istio: Istio, headers: dict[str, str]) -> None:
    answer = istio.ask(x_test_action="ignore", **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


def test_a_pool_without_a_server_answers_in_the_clients_words(istio: Istio) -> None:
    answer = istio.ask(x_test_pool="dead")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")


def test_a_client_can_not_choose_its_request_id_or_its_identity(istio: Istio) -> None:
    answer = istio.ask(x_request_id="mine", x_forwarded_client_cert="URI=spiffe://cluster.local/ns/a/sa/admin")
    seen = dict(answer.json()["headers"])
    assert answer.headers["x-request-id"] == seen["x-request-id"] != "mine"
    assert "x-forwarded-client-cert" not in seen["x-test-seen"]


def test_probes_are_answered_without_the_service(istio: Istio) -> None:
    url = f"http://127.0.0.1:{istio.port}/v2/health/ready"
    assert httpx.get(url, headers={"host": HOST}).status_code == 200


def test_each_route_is_ours_before_istios(istio: Istio) -> None:
    text = istio.envoy.path.read_text()
    assert text.count("name: default\n") <= 1
    if "name: default\n" in text:
        assert text.index("name: nothing\n") < text.index("name: default\n")
