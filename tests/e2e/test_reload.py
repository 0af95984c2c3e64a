"""gateway.yaml changes while everything runs: the new appears, the bad is refused, nothing in flight notices."""

import collections
import contextlib
import json
import os
import signal
import textwrap
import threading
from collections.abc import Iterator

import httpx
import pytest

from extproc.errors import ConfigError
from extproc.stack.stack import Stack
from extproc.stores.keys import KeyHasher
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG
from tests.helpers.usage import Scrape, log_lines, usage_of

ORIGINAL = CONFIG.read_text()
QUICK = "[[demo:ttft_ms=0]][[demo:tpot_ms=0]][[demo:tokens=5]]"
SLOW_ANSWER = "one more word " * 33 + "and an end"
SLOW = f"[[demo:echo]][[demo:tpot_ms=30]]{SLOW_ANSWER}"
FOLLOW_S = 0.2  # as often as `extproc up` does it
ALIAS = """\
  alias:
    pool: demo
    operations: [chat]
    tokenizer: {type: tiktoken, encoding: cl100k_base}
    chat_template: chatml
    context_window: 4096
"""


@pytest.fixture(scope="module")
def _gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBeside]:
    gateway = GatewayBeside(_session_stack, tmp_path_factory.mktemp("reload"), ORIGINAL)
    yield gateway
    gateway.close()


@pytest.fixture
def gateway(_gateway: GatewayBeside) -> Iterator[GatewayBeside]:
    """With the original configuration in force, before and after."""
    yield _gateway
    take_up(_gateway, ORIGINAL)
    _gateway.write_envoy()


@pytest.fixture
def http(gateway: GatewayBeside, stack_key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {stack_key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30.0) as client:
        yield client


def with_models(added: str) -> str:
    return ORIGINAL.replace("models: # what clients ask for by name\n", f"models:\n{added}")


def with_alias_in_a_pool_of_its_own(name: str) -> str:
    pool = textwrap.indent(
        textwrap.dedent(f"""\
            {name}:
              dialect: triton-generate
              model: demo_llm
              clusters:
                only: {{endpoints: ["127.0.0.1:${{EXTPROC_TRITON_B_HTTP_PORT}}"]}}
            """),
        "  ",
    )
    text = with_models(ALIAS.replace("pool: demo", f"pool: {name}"))
    return text.replace("pools: # where they are served\n", f"pools:\n{pool}")


def with_output_cap(tokens: int) -> str:
    return ORIGINAL.replace("max_output_tokens: 1024", f"max_output_tokens: {tokens}")


def in_force(gateway: GatewayBeside) -> list[str]:
    """The versions that the worker took up, in order."""
    lines = log_lines(gateway.service.log)
    return [line["version"] for line in lines if line["message"] == "configuration in force"]


def take_up(gateway: GatewayBeside, text: str) -> None:
    """Change the file and wait until the service goes by it. The signal saves the wait until it is looked at."""
    if gateway.config_path.read_text() == text:
        return
    gateway.change(text)
    version = gateway.load().version
    reload_now(gateway)
    assert wait_until(lambda: in_force(gateway)[-1:] == [version])


def reload_now(gateway: GatewayBeside) -> None:
    assert gateway.service.pid is not None
    os.kill(gateway.service.pid, signal.SIGHUP)


def chat(text: str, *, model: str = "demo-llm", stream: bool = False) -> dict[str, object]:
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}


def test_a_new_model_and_a_new_static_key_appear_by_themselves(gateway: GatewayBeside, http: httpx.Client) -> None:
    text = "sk-static-for-ci"
    key_hash = KeyHasher(gateway.load().keys.secret).hash(text)
    keys = f'  static:\n    ci: {{hash: "{key_hash}", team: platform, tier: pro, models: [alias]}}\n'
    assert http.post("/chat/completions", json=chat(QUICK, model="alias")).status_code == 404
    gateway.change(with_models(ALIAS).replace("  # Keys that need no Redis:\n", keys))
    ci = {"authorization": f"Bearer {text}"}
    assert wait_until(lambda: http.get("/models", headers=ci).status_code == 200)
    assert [model["id"] for model in http.get("/models", headers=ci).json()["data"]] == ["alias"]
    answer = http.post("/chat/completions", json=chat(QUICK, model="alias"), headers=ci)
    assert answer.status_code == 200, answer.text
    event = usage_of(gateway.service.log, answer.headers["x-request-id"])
    assert (event["principal"], event["team"], event["model"]) == ("ci", "platform", "alias")
    assert event["config_version"] == gateway.load().version == gateway.info()["config_version"]


def test_a_symbolic_link_that_is_swapped_is_a_change(gateway: GatewayBeside) -> None:
    """As Kubernetes mounts a ConfigMap."""
    new = gateway.directory / "new.yaml"
    new.write_text(with_output_cap(77))
    link = gateway.directory / "link"
    link.symlink_to(new)
    link.replace(gateway.config_path)
    assert wait_until(lambda: in_force(gateway)[-1:] == [gateway.load().version])
    gateway.config_path.unlink()
    gateway.config_path.write_text(with_output_cap(78))
    assert wait_until(lambda: in_force(gateway)[-1:] == [gateway.load().version])


@pytest.mark.parametrize(
    "bad",
    [ORIGINAL + "nonsense: 1\n", ORIGINAL.replace("pool: demo", "pool: nowhere"), "models: [", ""],
    ids=["unknown-key", "broken-reference", "no-yaml", "empty"],
)
def test_a_bad_file_is_refused_and_the_old_one_stays(gateway: GatewayBeside, http: httpx.Client, bad: str) -> None:
    def refusals() -> int:
        return len([line for line in log_lines(gateway.service.log) if "refused" in line["message"]])

    before, version = refusals(), gateway.info()["config_version"]
    gateway.change(bad)
    assert wait_until(lambda: refusals() == before + 1)
    (*_, line) = (line for line in log_lines(gateway.service.log) if "refused" in line["message"])
    assert line["level"] == "error"
    assert all(problem.startswith(f"{gateway.config_path}:") for problem in line["problems"])
    with pytest.raises(ConfigError):  # which is what `extproc up` prints
        gateway.write_envoy()
    assert gateway.info()["config_version"] == version
    assert http.post("/chat/completions", json=chat(QUICK)).status_code == 200
    assert gateway.ready()


def test_a_file_that_is_gone_is_refused_too(gateway: GatewayBeside, http: httpx.Client) -> None:
    away = gateway.config_path.rename(gateway.directory / "away")
    assert wait_until(lambda: "No such file" in str(log_lines(gateway.service.log)[-1].get("problems")))
    assert http.post("/chat/completions", json=chat(QUICK)).status_code == 200
    away.rename(gateway.config_path)


def test_refusals_are_counted(gateway: GatewayBeside) -> None:
    def refused() -> float:
        return Scrape(gateway.ports.service_admin).value("extproc_config_reloads_total", outcome="refused")

    before = refused()
    gateway.change(ORIGINAL + "nonsense: 1\n")
    reload_now(gateway)
    assert wait_until(lambda: refused() == before + 1)


def test_a_signal_reloads_too(gateway: GatewayBeside) -> None:
    def taken() -> float:
        return Scrape(gateway.ports.service_admin).value("extproc_config_reloads_total", outcome="taken")

    before = taken()
    reload_now(gateway)
    assert wait_until(lambda: taken() == before + 1)


def test_a_stream_in_flight_survives_reloads_with_the_version_it_began_with(
    gateway: GatewayBeside, http: httpx.Client
) -> None:
    version = gateway.load().version
    with http.stream("POST", "/chat/completions", json=chat(SLOW, stream=True)) as answer:
        lines = answer.iter_lines()
        received = [next(lines)]
        for number in range(5):
            take_up(gateway, with_output_cap(100 + number))
            gateway.write_envoy()
        assert in_force(gateway)[-1] != version
        received += lines
    *events, last = [line.removeprefix("data: ") for line in received if line]
    assert last == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events) == SLOW_ANSWER
    event = usage_of(gateway.service.log, answer.headers["x-request-id"])
    assert (event["termination"], event["config_version"]) == ("COMPLETED", version)


class Load:
    """Requests in a loop, whole and streamed, from several threads, until it is stopped."""

    def __init__(self, gateway: GatewayBeside, key: str) -> None:
        self._base_url = gateway.base_url
        self._headers = {"authorization": f"Bearer {key}"}
        self._stop = threading.Event()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._threads = [threading.Thread(target=self._run, args=(stream,)) for stream in (False, True, False)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self, stream: bool) -> None:
        with httpx.Client(base_url=self._base_url, headers=self._headers, timeout=30.0) as client:
            while not self._stop.is_set():
                self.outcomes[self._ask(client, stream)] += 1

    def _ask(self, client: httpx.Client, stream: bool) -> str:
        try:
            answer = client.post("/chat/completions", json=chat(QUICK, stream=stream))
        except httpx.HTTPError as error:
            return repr(error)
        if answer.status_code != 200:
            return answer.text
        return "ok" if not stream or answer.text.endswith("data: [DONE]\n\n") else "cut off"


def test_fifty_reloads_under_load_cost_no_request(gateway: GatewayBeside, stack_key: str) -> None:
    load = Load(gateway, stack_key)
    with load.running():
        for number in range(50):
            swapped = with_output_cap(200 + number).replace("weight: 50", f"weight: {10 + number % 40}", 1)
            take_up(gateway, swapped)
            gateway.write_envoy()
    assert set(load.outcomes) == {"ok"}, load.outcomes
    assert load.outcomes["ok"] > 50


def test_new_weights_and_a_new_pool_reach_envoy_without_a_restart(gateway: GatewayBeside, http: httpx.Client) -> None:
    pid = gateway.envoy.pid
    text = with_alias_in_a_pool_of_its_own("fresh")
    text = text.replace("weight: 50", "weight: 100", 1).replace("weight: 50", "weight: 0", 1)
    gateway.change(text)
    gateway.write_envoy()
    reload_now(gateway)
    assert wait_until(lambda: http.post("/chat/completions", json=chat(QUICK, model="alias")).status_code == 200)
    answer = http.post("/chat/completions", json=chat(QUICK, model="alias"))
    assert answer.headers["x-extproc-pool"] == "fresh"
    ids = [http.post("/chat/completions", json=chat(QUICK)).headers["x-request-id"] for _ in range(12)]
    assert {cluster_of(gateway, request_id) for request_id in ids} == {"demo/triton-a"}
    assert gateway.envoy.pid == pid
    assert gateway.envoy.running


def cluster_of(gateway: GatewayBeside, request_id: str) -> str:
    found: list[str] = []

    def arrived() -> bool:
        lines = log_lines(gateway.envoy.log)
        found[:] = [line["upstream_cluster"] for line in lines if line.get("request_id") == request_id]
        return bool(found)

    assert wait_until(arrived)
    return found[0]


def with_pool(name: str) -> str:
    return ORIGINAL.replace("    pool: demo\n", f"    pool: {name}\n").replace("  demo:\n", f"  {name}:\n")


def pool_of_answer(http: httpx.Client) -> str:
    answer = http.post("/chat/completions", json=chat(QUICK))
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-extproc-pool"])


def test_where_the_service_learns_first_requests_go_where_envoy_can_send_them(
    gateway: GatewayBeside, http: httpx.Client
) -> None:
    before = pool_of_answer(http)
    take_up(gateway, with_pool("first"))
    take_up(gateway, with_pool("second"))
    assert pool_of_answer(http) == before
    event = usage_of(gateway.service.log, http.post("/chat/completions", json=chat(QUICK)).headers["x-request-id"])
    assert event["config_version"] == gateway.load().version  # in everything else the new one is in force
    gateway.write_envoy()
    assert wait_until(lambda: pool_of_answer(http) == "second")


def test_where_envoy_learns_first_it_goes_on_understanding_the_service(
    gateway: GatewayBeside, http: httpx.Client
) -> None:
    def pools() -> str:
        tables = httpx.get(f"http://127.0.0.1:{gateway.ports.gateway_admin}/config_dump?resource=dynamic_route_configs")
        return str(tables.json()["configs"][0]["route_config"]["virtual_hosts"][0]["name"])

    before = pool_of_answer(http)
    for name in ("third", "fourth", "fourth"):
        gateway.write_envoy(with_pool(name))
    assert wait_until(lambda: pools().startswith("pools:fourth,"))
    assert pool_of_answer(http) == before


def test_a_model_in_no_pool_that_envoy_knows_is_asked_for_again_later(
    gateway: GatewayBeside, http: httpx.Client
) -> None:
    take_up(gateway, with_alias_in_a_pool_of_its_own("unheard-of"))
    answer = http.post("/chat/completions", json=chat(QUICK, model="alias"))
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (
        503,
        "overloaded",
        "1",
    )
    gateway.write_envoy()
    assert wait_until(lambda: http.post("/chat/completions", json=chat(QUICK, model="alias")).status_code == 200)


def test_a_renamed_pool_costs_no_request(gateway: GatewayBeside, stack_key: str) -> None:
    """Service and Envoy each learn of it when they look at the file: in between they must still understand."""
    load = Load(gateway, stack_key)
    with following(gateway), load.running():
        for name in ("renamed", "demo", "again"):
            gateway.change(with_pool(name))
            version = gateway.load().version
            assert wait_until(lambda version=version: in_force(gateway)[-1:] == [version])  # type: ignore[misc]
            answered = load.outcomes.total()
            assert wait_until(lambda answered=answered: load.outcomes.total() > answered + 10)  # type: ignore[misc]
    assert set(load.outcomes) == {"ok"}, load.outcomes


@contextlib.contextmanager
def following(gateway: GatewayBeside) -> Iterator[None]:
    """What `extproc up` does for its Envoy."""
    stop = threading.Event()

    def follow() -> None:
        seen = None
        while not stop.wait(FOLLOW_S):
            now = gateway.config_path.stat().st_ino
            if now != seen:
                seen = now
                gateway.write_envoy()

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()
