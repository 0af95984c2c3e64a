"""A policy that needs the encoder, in a copy of the package, with requests through a real Envoy: its results, its
failures, and its exchange by a reload."""

import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping

import httpx
import pytest

import extproc
from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG
from tests.helpers.usage import Scrape, log_lines

ORIGINAL = CONFIG.read_text()
POLICY = '''
"""Says how much of a request the encoder has seen."""

from extproc.config.policy import PolicySettings
from extproc.policies.interface import CONTINUE


class Settings(PolicySettings):
    @property
    def uses_encoder(self) -> bool:
        return True


class Judge:
    name = "judge"
    settings_type = Settings

    def __init__(self, settings, services):
        pass

    async def on_request(self, ctx):
        texts = [segment.text for segment in ctx.request.texts()]
        scanned = await ctx.scan.results(texts)
        seen = sum(len(window.encoding.embedding) // 4 for one in scanned for window in one.windows)
        coverage = ctx.scan.coverage
        ctx.response_headers.append(("x-judged", f"{coverage.done}/{coverage.total}/{seen}"))
        return CONTINUE
'''


def with_policy(directory: pathlib.Path) -> Mapping[str, str]:
    """The environment in which `extproc` is a copy that has the policy."""
    package = directory / "extproc"
    shutil.copytree(pathlib.Path(extproc.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "policies" / "judge.py").write_text(POLICY)
    pipeline = package / "policies" / "pipeline.py"
    text = pipeline.read_text()
    place = "    Account,\n)"
    assert text.count(place) == 1
    text = text.replace(place, f"    Judge,\n{place}")
    imported = "from extproc.policies.limit import"
    text = text.replace(imported, f"from extproc.policies.judge import Judge\n{imported}")
    pipeline.write_text(text)
    return {"PYTHONPATH": str(directory), "PYTHONSAFEPATH": "1"}


class GatewayOfCopy(GatewayBeside):
    """Its Envoy's configuration is the copy's, which knows the policy."""

    def write_envoy(self) -> pathlib.Path:
        bootstrap = self.directory / "envoy.yaml"
        command = [sys.executable, "-m", "extproc", "envoy", str(self.config_path)]
        bootstrap.write_bytes(subprocess.run(command, env=self.environment, capture_output=True, check=True).stdout)
        return bootstrap


@pytest.fixture(scope="module")
def gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOfCopy]:
    env = with_policy(tmp_path_factory.mktemp("copy"))
    gateway = GatewayOfCopy(_session_stack, tmp_path_factory.mktemp("gateway"), ORIGINAL, env=env)
    yield gateway
    gateway.close()


def ask(gateway: GatewayBeside, key: str, text: str) -> httpx.Response:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    body = {"model": "demo-llm", "max_tokens": 3, "messages": messages}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=30.0)


def take_up(gateway: GatewayBeside, text: str) -> None:
    def said() -> int:
        return len([one for one in log_lines(gateway.service.log) if "configuration" in one["message"]])

    before = said()
    gateway.change(text)
    assert wait_until(lambda: said() > before)


def with_sections(encoder: str = "", judge: str = "", scan: str = "") -> str:
    """The configuration with these in flow style."""
    policies = "".join(f"  {name}: {{{value}}}\n" for name, value in (("judge", judge), ("scan", scan)) if value)
    own = re.compile(r"^encoder:.*\n(?: .*\n)+", re.MULTILINE)
    text = own.sub(f"encoder: {{{encoder}}}\n", ORIGINAL) if encoder else ORIGINAL
    lines = text.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("policies:"))
    return "".join([*lines[: at + 1], policies, *lines[at + 1 :]])


def test_every_text_of_a_request_is_encoded(gateway: GatewayOfCopy, stack_key: str) -> None:
    answer = ask(gateway, stack_key, "Hello there.")
    assert answer.status_code == 200
    assert answer.headers["x-judged"] == f"2/2/{2 * 384}"
    scrape = Scrape(gateway.ports.service_admin)
    assert scrape.value("extproc_encoder_provider", provider="cpu") == 1
    assert scrape.value("extproc_encoder_batch_texts_sum") == 2
    assert scrape.value("extproc_encoder_waiting") == 0


def test_a_long_request_has_its_budget(gateway: GatewayOfCopy, stack_key: str) -> None:
    take_up(gateway, with_sections(scan="budget_windows: 3"))
    answer = ask(gateway, stack_key, "Some words that say nothing at all. " * 300)
    assert answer.status_code == 200
    done, total, _ = answer.headers["x-judged"].split("/")
    assert done == "3"
    assert int(total) > 20


def test_without_triton_requests_are_refused_or_go_on_as_configured(gateway: GatewayOfCopy, stack_key: str) -> None:
    nobody = "backend: triton, triton: {address: '127.0.0.1:9'}"
    take_up(gateway, with_sections(encoder=nobody))
    refused = ask(gateway, stack_key, "Hello there.")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "overloaded"
    assert "retry-after" in refused.headers
    take_up(gateway, with_sections(encoder=nobody, judge="on_failure: open"))
    answer = ask(gateway, stack_key, "Hello there.")
    assert answer.status_code == 200
    assert answer.headers["x-extproc-degraded"] == "judge"
    scrape = Scrape(gateway.ports.service_admin)
    assert scrape.value("extproc_policy_failures_total", policy="judge", dependency="encoder") == 2
    assert scrape.value("extproc_encoder_failures_total", reason="unavailable") >= 2
    assert scrape.value("extproc_encoder_provider", provider="triton") == 1


def test_an_encoder_that_can_not_be_had_is_refused_and_the_old_one_stays(
    gateway: GatewayOfCopy, stack_key: str
) -> None:
    take_up(gateway, ORIGINAL)
    broken = gateway.directory / "broken"
    broken.mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (broken / name).write_text("{}")
    take_up(gateway, with_sections(encoder=f"model_dir: {broken}"))
    (*_, line) = (one for one in log_lines(gateway.service.log) if one["message"] == "new configuration refused")
    assert "tokenizer.json" in line["problems"][0]
    assert ask(gateway, stack_key, "Hello there.").status_code == 200


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"encoder": "backend: 'off'"}, "encoder.backend: a policy that is on needs the encoder"),
        ({"scan": "mode: 'off'"}, "policies.scan.mode: a policy that is on needs it"),
        ({"encoder": "model_dir: /nowhere"}, "encoder.model_dir: there is no file /nowhere/tokenizer.json"),
    ],
)
def test_what_can_not_work_is_found_before(
    gateway: GatewayOfCopy, tmp_path: pathlib.Path, sections: Mapping[str, str], problem: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(with_sections(**sections))
    command = [sys.executable, "-m", "extproc", "check", str(file)]
    run = subprocess.run(command, env=gateway.environment, capture_output=True, text=True, timeout=60)
    assert run.returncode != 0
    assert problem in run.stdout + run.stderr
