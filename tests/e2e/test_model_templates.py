"""What `extproc models new` makes, loaded by a real Triton and asked through the gateway by the section it prints.

Neither vLLM nor TensorRT-LLM can run here: each has a stand-in of the same schema and rules (tests/data/stand_ins).
What was generated is loaded as it is.
"""

import contextlib
import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from extproc.cli.main import main
from extproc.inference import minilm
from extproc.stack.triton import TritonPorts
from tests.helpers.ports import free_base
from tests.helpers.processes import wait_until
from tests.helpers.services import Upstreams, served
from tests.helpers.triton import RunningTriton, events, running

pytestmark = [pytest.mark.xdist_group("model_templates"), pytest.mark.timeout(120)]

STAND_INS = Path(__file__).resolve().parents[1] / "data" / "stand_ins"
VLLM, ADAPTED_VLLM = "talk", "talk-alpaca"
LLM_API, ADAPTED_LLM_API = "fast", "fast-alpaca"
MODELS = (VLLM, ADAPTED_VLLM, LLM_API, ADAPTED_LLM_API)
WHO = {VLLM: "base", ADAPTED_VLLM: "alpaca", LLM_API: "base", ADAPTED_LLM_API: "1:alpaca:/loras/alpaca"}
every_model = pytest.mark.parametrize("model", MODELS)
every_front = pytest.mark.parametrize("model", [model for model in MODELS if model != VLLM])


@dataclass
class World:
    triton: RunningTriton
    client: openai.OpenAI

    def ready(self, model: str) -> bool:
        return httpx.get(f"{self.triton.url}/v2/models/{model}/ready").status_code == httpx.codes.OK

    def generate(self, model: str, prompt: str, **fields: Any) -> httpx.Response:
        body = {"text_input": prompt, "exclude_input_in_output": True, "return_finish_reason": True, **fields}
        verb = "generate_stream" if fields.get("stream") else "generate"
        return httpx.post(f"{self.triton.url}/v2/models/{model}/{verb}", json=body, timeout=30)


def new(repository: Path, port: int, *arguments: str) -> dict[str, Any]:
    """The section of gateway.yaml that the command prints."""
    printed = io.StringIO()
    tokenizer = minilm.build(minilm.default_folder()).model.with_name("tokenizer.json")
    serving = ("--endpoint", f"127.0.0.1:{port}", "--tokenizer", str(tokenizer), "--chat-template", "chatml")
    with contextlib.redirect_stdout(printed):
        code = main(
            ["models", "new", *arguments, *serving, "--lora", "alpaca=/loras/alpaca", "--repository", str(repository)]
        )
    assert code == 0
    section: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return section


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("templates")
    repository = directory / "repository"
    base = free_base()
    parallel = ("--tensor-parallel", "2", "--gpu-ids", "0,1")
    sections = [
        new(repository, base, VLLM, "--backend", "vllm", "--model", "m", *parallel),
        new(repository, base, LLM_API, "--backend", "tensorrtllm", "--model", "m", "--no-prefix-caching"),
    ]
    engine = f"{LLM_API}-engine"
    shutil.copy(STAND_INS / "llm_api_model.py", repository / engine / "1" / "model.py")
    backends = {"vllm": STAND_INS / "vllm_backend.py"}
    log = directory / "triton.log"
    with running(
        (*MODELS, engine),
        log,
        directory,
        repository=repository,
        backends=backends,
        ports=TritonPorts(http=base, grpc=base + 1, metrics=base + 2),
    ) as triton:
        more = {part: _merged(sections, part) for part in ("models", "pools")}
        with served(directory / "gateway", Upstreams(), more=more) as gateway:
            yield World(triton, gateway.openai())


def _merged(sections: list[dict[str, Any]], part: str) -> str:
    return yaml.safe_dump({name: entry for section in sections for name, entry in section[part].items()})


@every_model
def test_a_chat_through_the_gateway(world: World, model: str) -> None:
    answer = world.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Good morning"}], max_tokens=3
    )
    choice = answer.choices[0]
    assert choice.message.content is not None
    assert choice.message.content.startswith(f"{WHO[model]} <|im_start|>user Good")
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


@every_model
def test_a_stream_through_the_gateway(world: World, model: str) -> None:
    chunks = list(
        world.client.completions.create(
            model=model, prompt="one two three", max_tokens=9, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [choice.text for chunk in chunks for choice in chunk.choices if choice.text]
    assert pieces == [f"{WHO[model]} ", "one ", "two ", "three "]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    if model in (VLLM, ADAPTED_VLLM):  # which counts by itself, a word as a token
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 4)


@every_front
def test_a_front_follows_the_rules_of_vllms_backend(world: World, model: str) -> None:
    whole = world.generate(model, "a b", exclude_input_in_output=False, return_finish_reason=False).json()
    assert whole["text_output"] == f"a b{WHO[model]} a b "
    assert "finish_reason" not in whole
    streamed = events(world.generate(model, "a b", stream=True).text)
    assert [event["text_output"] for event in streamed] == [f"{WHO[model]} ", "a ", "b "]
    assert [event["finish_reason"] for event in streamed] == ["None", "None", "stop"]


@every_front
def test_an_engine_that_breaks_is_an_error_and_no_silence(world: World, model: str) -> None:
    streamed = events(world.generate(model, "a b c [[break]]", stream=True).text)
    assert [event.get("text_output") for event in streamed[:2]] == [f"{WHO[model]} ", "a "]
    assert "the engine is broken" in streamed[-1]["error"]
    assert world.generate(model, "still there?").status_code == httpx.codes.OK


@every_front
def test_an_engine_stops_when_nobody_listens(world: World, model: str) -> None:
    body = {"text_input": "[[endless]]", "stream": True}
    with httpx.stream("POST", f"{world.triton.url}/v2/models/{model}/generate_stream", json=body, timeout=30) as answer:
        lines = answer.iter_lines()  # an iterator that is dropped closes the connection
        assert next(lines).startswith("data: ")
        assert world.generate(model, "[[endless?]]").json()["text_output"] == "{1}"
    assert wait_until(lambda: world.generate(model, "[[endless?]]").json()["text_output"] == "set()")


def test_an_engine_that_is_not_there(world: World) -> None:
    """The front is ready all the same, which is why its pool asks after the engine."""
    engine = f"{LLM_API}-engine"
    repository = f"{world.triton.url}/v2/repository/models/{engine}"
    httpx.post(f"{repository}/unload").raise_for_status()
    try:
        assert wait_until(lambda: not world.ready(engine))
        assert world.ready(LLM_API)
        gone = world.generate(LLM_API, "hello")
        assert (gone.status_code, engine in gone.json()["error"]) == (httpx.codes.BAD_REQUEST, True)
    finally:
        httpx.post(f"{repository}/load", timeout=30).raise_for_status()


def test_parameters_reach_the_llm_api(world: World) -> None:
    answer = world.client.completions.create(
        model=LLM_API, prompt="a b c d", stop=["c"], temperature=0.5, top_p=0.9, seed=7, max_tokens=20
    )
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("base a b ", "stop")


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        ('{"min_p": 0.1}', "min_p"),
        ('{"seed": -1}', "unsigned-integer"),
        ('{"max_tokens": "many"}', "signed-integer"),
        ("no JSON", "no JSON"),
    ],
)
def test_what_the_llm_api_does_not_take_is_refused(world: World, sampling: str, complaint: str) -> None:
    refused = world.generate(LLM_API, "hello", sampling_parameters=sampling)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert complaint in refused.json()["error"]


def test_a_front_asks_for_several_at_once(world: World) -> None:
    """Each waits in the engine until the other is there."""
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda name: world.generate(ADAPTED_VLLM, f"{name} [[together]]"), ("a", "b")))
    assert [answer.status_code for answer in answers] == [200, 200]
