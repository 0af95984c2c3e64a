"""The models in triton_models/ on a real Triton, over its own HTTP API."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import psutil
import pytest
from rs_bpe.bpe import openai
from tokenizers import Tokenizer

from extproc.inference import minilm
from extproc.stack import triton
from tests.helpers.triton import RunningTriton, events, free_ports, running

pytestmark = pytest.mark.timeout(120)

TOKENIZER = openai.cl100k_base()
GENERATE = "/v2/models/demo_llm/generate"
GENERATE_STREAM = "/v2/models/demo_llm/generate_stream"
MINILM_INFER = "/v2/models/minilm/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with running(["demo_llm", "minilm"], log) as server:
        yield server


@pytest.fixture
def client(server: RunningTriton) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def body(prompt: str, *, stream: bool = False, **sampling: Any) -> dict[str, Any]:
    return {
        "text_input": prompt,
        "stream": stream,
        "sampling_parameters": json.dumps(sampling),
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }


def generate(client: httpx.Client, prompt: str, **sampling: Any) -> dict[str, Any]:
    response = client.post(GENERATE, json=body(prompt, **sampling))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def generate_stream(client: httpx.Client, prompt: str, **sampling: Any) -> list[dict[str, Any]]:
    response = client.post(GENERATE_STREAM, json=body(prompt, stream=True, **sampling))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return events(response.text)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.05)


def idle(server: RunningTriton) -> bool:
    names = ("demo_llm_running", "demo_llm_queue_depth", "demo_llm_kv_cache_utilization")
    return all(server.metric(name) == 0 for name in names)


def test_ready_soon(server: RunningTriton) -> None:
    assert server.seconds_to_ready < 10


class TestGenerate:
    def test_one_answer_with_exact_counts(self, client: httpx.Client) -> None:
        prompt = "<|im_start|>user\nnaïve 日本 👍🏽<|im_end|>\n<|im_start|>assistant\n"
        answer = generate(client, prompt)
        assert answer["finish_reason"] == "stop"
        assert answer["num_input_tokens"] == TOKENIZER.count(prompt)
        assert answer["num_output_tokens"] == TOKENIZER.count(answer["text_output"])
        assert (answer["model_name"], answer["model_version"]) == ("demo_llm", "1")

    def test_max_tokens(self, client: httpx.Client) -> None:
        answer = generate(client, "hello", max_tokens=7)
        assert (answer["finish_reason"], answer["num_output_tokens"]) == ("length", 7)

    def test_deterministic_by_prompt_and_seed(self, client: httpx.Client) -> None:
        texts = [generate(client, "same [[demo:tpot_ms=0]]", seed=seed)["text_output"] for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]
        cold = [generate(client, "same [[demo:tpot_ms=0]]", temperature=0, seed=seed)["text_output"] for seed in (1, 2)]
        assert cold[0] == cold[1]

    def test_stop_sequence(self, client: httpx.Client) -> None:
        whole = generate(client, "stop here")["text_output"]
        stop = whole[20:26]
        answer = generate(client, "stop here", stop=[stop, "never said"])
        assert answer["text_output"] == whole[: whole.index(stop)]
        assert answer["finish_reason"] == "stop"

    def test_ignore_eos_runs_to_the_limit(self, client: httpx.Client) -> None:
        answer = generate(client, "hello [[demo:tpot_ms=0]]", max_tokens=300, ignore_eos=True)
        assert (answer["finish_reason"], answer["num_output_tokens"]) == ("length", 300)

    def test_echo(self, client: httpx.Client) -> None:
        assert generate(client, "[[demo:echo]] 日本 back\u2028 to you")["text_output"] == "日本 back\u2028 to you"

    def test_prompt_comes_back_unless_excluded(self, client: httpx.Client) -> None:
        answer = client.post(GENERATE, json={"text_input": "Say: ", "sampling_parameters": '{"max_tokens":3}'}).json()
        assert answer["text_output"].startswith("Say: ")
        assert "finish_reason" not in answer

    def test_parameters_may_come_as_plain_keys(self, client: httpx.Client) -> None:
        request = {
            "text_input": "x",
            "max_tokens": 4,
            "exclude_input_in_output": True,
            "return_num_output_tokens": True,
        }
        assert client.post(GENERATE, json=request).json()["num_output_tokens"] == 4

    @pytest.mark.parametrize(
        ("request_body", "message"),
        [
            (body("x", max_tokens=0), "max_tokens must be at least 1"),
            (body("x", n=2), "n must be 1"),
            (body("x [[demo:tokens=200000]]", max_tokens=200000), "do not fit the KV cache"),
            ({"sampling_parameters": "{}"}, "text_input is required"),
            (body("[[demo:error-before]]"), "asked for an error"),
            (body("[[demo:error-after=2]]"), "asked for an error after 2 tokens"),
        ],
    )
    def test_errors(self, client: httpx.Client, request_body: dict[str, Any], message: str) -> None:
        response = client.post(GENERATE, json=request_body)
        assert response.status_code == 400
        assert message in response.json()["error"]

    def test_stream_asked_of_the_wrong_endpoint(self, client: httpx.Client) -> None:
        response = client.post(GENERATE, json=body("hello", stream=True))
        assert response.status_code == 200
        assert "exactly 1 response" in response.json()["error"]


class TestGenerateStream:
    def test_one_event_per_token_and_the_same_text(self, client: httpx.Client) -> None:
        prompt = "tell me about 日本 and cafés"
        parts = generate_stream(client, prompt)
        text = "".join(part["text_output"] for part in parts)
        assert text == generate(client, prompt)["text_output"]
        assert "\ufffd" not in text
        assert sum(part["num_output_tokens"] for part in parts) == TOKENIZER.count(text) == len(parts)
        assert {part["num_input_tokens"] for part in parts} == {TOKENIZER.count(prompt)}
        assert [part["finish_reason"] for part in parts] == ["None"] * (len(parts) - 1) + ["stop"]
        assert "cached_tokens" in parts[0]
        assert all("cached_tokens" not in part for part in parts[1:])

    def test_stop_sequence_never_shows(self, client: httpx.Client) -> None:
        whole = generate(client, "stream and stop")["text_output"]
        stop = whole[30:37]
        parts = generate_stream(client, "stream and stop", stop=stop)
        assert "".join(part["text_output"] for part in parts) == whole[: whole.index(stop)]
        assert parts[-1]["finish_reason"] == "stop"

    def test_empty_answer(self, client: httpx.Client) -> None:
        (part,) = generate_stream(client, "[[demo:tokens=0]]")
        assert (part["text_output"], part["finish_reason"], part["num_output_tokens"]) == ("", "stop", 0)

    def test_error_before_the_first_token(self, client: httpx.Client) -> None:
        response = client.post(GENERATE_STREAM, json=body("[[demo:error-before]]", stream=True))
        assert response.status_code == 400
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "asked for an error" in events(response.text)[0]["error"]

    def test_error_after_a_200(self, client: httpx.Client) -> None:
        parts = generate_stream(client, "[[demo:error-after=3]]")
        assert ["error" in part for part in parts] == [False, False, False, True]
        assert "finish_reason" not in parts[-1]

    def test_paced_as_asked(self, client: httpx.Client) -> None:
        started = time.monotonic()
        generate_stream(client, "[[demo:tokens=11]] [[demo:ttft_ms=200]] [[demo:tpot_ms=40]]")
        assert 0.5 < time.monotonic() - started < 2


class TestCapacity:
    def test_cancelled_streams_free_their_places(self, server: RunningTriton, client: httpx.Client) -> None:
        slow = body("[[demo:tokens=2000]] [[demo:tpot_ms=50]]", stream=True, max_tokens=2000)
        with client.stream("POST", GENERATE_STREAM, json=slow) as response:
            chunks = response.iter_raw()
            next(chunks)
            assert server.metric("demo_llm_running") == 1
            assert server.metric("demo_llm_kv_cache_utilization") > 0
        until(lambda: idle(server))

    def test_a_caller_gone_before_the_first_token_is_noticed_at_the_first_token(
        self, server: RunningTriton, client: httpx.Client
    ) -> None:
        waiting = body("[[demo:tokens=2000]] [[demo:tpot_ms=50]] [[demo:ttft_ms=1500]]", stream=True, max_tokens=2000)
        with pytest.raises(httpx.ReadTimeout):
            client.post(GENERATE_STREAM, json=waiting, timeout=0.5)
        assert server.metric("demo_llm_running") == 1
        until(lambda: idle(server))

    def test_second_identical_prompt_starts_sooner(self, server: RunningTriton, client: httpx.Client) -> None:
        prompt = f"{time.time()} " + "a long shared beginning of words " * 300
        hits_before = server.metric("demo_llm_prefix_cache_hit_tokens")
        delays_s, cached = [], []
        for _ in range(2):
            started = time.monotonic()
            answer = generate(client, prompt, max_tokens=1)
            delays_s.append(time.monotonic() - started)
            cached.append(answer["cached_tokens"])
        expected = (answer["num_input_tokens"] - 1) // 16 * 16
        assert cached == [0, expected]
        assert delays_s[1] < delays_s[0] * 0.6
        assert server.metric("demo_llm_prefix_cache_hit_tokens") == hits_before + expected

    async def test_64_streams_at_once(self, server: RunningTriton) -> None:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=60, limits=httpx.Limits(max_connections=None)
        ) as client:

            async def one(number: int) -> list[dict[str, Any]]:
                prompt = f"stream {number} [[demo:tokens=60]]"
                response = await client.post(GENERATE_STREAM, json=body(prompt, stream=True))
                return events(response.text)

            answers = await asyncio.gather(*(one(number) for number in range(64)))
        assert {len(parts) for parts in answers} == {60}
        assert {parts[-1]["finish_reason"] for parts in answers} == {"stop"}
        assert max(parts[0]["queue_depth"] for parts in answers) > 0
        until(lambda: idle(server))


class TestMiniLm:
    def infer(self, client: httpx.Client, texts: list[str]) -> tuple[np.ndarray, list[int]]:
        one_input = {"name": "TEXT", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}
        response = client.post(MINILM_INFER, json={"inputs": [one_input]})
        assert response.status_code == 200, response.text
        outputs = {output["name"]: output for output in response.json()["outputs"]}
        embedding = np.array(outputs["EMBEDDING"]["data"], dtype=np.float32)
        return embedding.reshape(outputs["EMBEDDING"]["shape"]), outputs["NUM_TOKENS"]["data"]

    def test_batch_equals_single_equals_local(self, client: httpx.Client) -> None:
        texts = ["short", "a somewhat longer sentence about proxies and 日本", "", "mid sized one here"]
        batch, counts = self.infer(client, texts)
        singles = np.concatenate([self.infer(client, [text])[0] for text in texts])
        np.testing.assert_allclose(batch, singles, atol=1e-5)
        folder = minilm.default_folder()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        for text, row, count in zip(texts, batch, counts, strict=True):
            ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
            assert ids.shape[1] == count
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            np.testing.assert_allclose(row, session.run(["embedding"], inputs)[0][0], atol=1e-5)

    def test_too_long_names_the_limit(self, client: httpx.Client) -> None:
        one_input = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["hello " * 600]}
        response = client.post(MINILM_INFER, json={"inputs": [one_input]})
        assert response.status_code == 400
        assert response.json() == {"error": "TEXT has 602 tokens, the limit is 512"}


class TestLifecycle:
    """Last in the file: these take the models away and bring them back."""

    def test_unload_and_load(self, client: httpx.Client) -> None:
        assert client.post("/v2/repository/models/minilm/unload").status_code == 200
        until(lambda: client.get("/v2/models/minilm/ready").status_code == 400)
        assert client.get("/v2/health/ready").status_code == 400
        assert client.post(MINILM_INFER, json={"inputs": []}).status_code == 404
        assert client.post("/v2/repository/models/minilm/load").status_code == 200
        until(lambda: client.get("/v2/health/ready").status_code == 200)

    def test_a_crashed_model_hangs_its_streams_until_loaded_again(self, client: httpx.Client) -> None:
        crash = body("[[demo:crash-after=2]]", stream=True)
        with client.stream("POST", GENERATE_STREAM, json=crash, timeout=1) as response:
            lines = response.iter_lines()
            received = [next(lines) for _ in range(4)]  # two events, a blank line after each
            with pytest.raises(httpx.ReadTimeout):
                next(lines)
        assert all("text_output" in event for event in events("\n".join(received)))
        assert client.get("/v2/health/ready").status_code == 200
        response = client.post(GENERATE, json=body("x"))
        assert response.status_code == 400
        assert "not healthy" in response.json()["error"]
        assert client.post("/v2/repository/models/demo_llm/unload").status_code == 200
        assert client.post("/v2/repository/models/demo_llm/load").status_code == 200
        assert generate(client, "x", max_tokens=2)["num_output_tokens"] == 2


def test_two_servers_side_by_side_leave_no_shared_memory(server: RunningTriton, tmp_path: Path) -> None:
    regions = Path("/dev/shm")
    with running(["demo_llm"], tmp_path / "second.log") as second:
        assert list(regions.glob(f"{triton.shared_memory_prefix(second.ports)}*"))
        with second.client() as client:
            assert generate(client, "x", max_tokens=2)["num_output_tokens"] == 2
        second.process.terminate()
        second.process.wait(20)
        assert not list(regions.glob(f"{triton.shared_memory_prefix(second.ports)}*"))
    assert list(regions.glob(f"{triton.shared_memory_prefix(server.ports)}*"))


def test_a_killed_server_takes_its_busy_model_along(tmp_path: Path) -> None:
    with running(["demo_llm"], tmp_path / "killed.log") as server, server.client() as client:
        (stub,) = psutil.Process(server.process.pid).children(recursive=True)
        slow = body("[[demo:tokens=2000]] [[demo:tpot_ms=20]]", stream=True, max_tokens=2000)
        with client.stream("POST", GENERATE_STREAM, json=slow) as response:
            chunks = response.iter_raw()
            next(chunks)
            server.process.kill()
            until(lambda: not stub.is_running())


def test_removes_what_a_killed_server_left() -> None:
    ports = triton.TritonPorts(*free_ports(3))
    left = Path("/dev/shm") / f"{triton.shared_memory_prefix(ports)}left"
    left.touch()
    triton.remove_shared_memory(ports)
    assert not left.exists()
