"""Triton's own HTTP client, pointed at the gateway: tensors and questions pass, and a refusal reads well in its
exception.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from extproc import __version__
from extproc.stack.stack import Stack
from tests.helpers.accounting import books_of

TEXTS = ["A cat sits on the mat.", "Zürich 日本語 👍🏽"]


@pytest.fixture
def client(stack: Stack) -> Iterator[Any]:
    with contextlib.closing(triton.InferenceServerClient(str(stack.config.gateway.listen))) as client:
        yield client


@pytest.fixture
def headers(stack_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack_key}"}


def texts(*, binary: bool) -> list[Any]:
    tensor = triton.InferInput("TEXT", [len(TEXTS), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()] for text in TEXTS], dtype=object), binary_data=binary)
    return [tensor]


def outputs(*, binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in ("EMBEDDING", "NUM_TOKENS")]


@pytest.mark.parametrize("binary_input", [True, False], ids=["binary-in", "json-in"])
@pytest.mark.parametrize("binary_output", [True, False], ids=["binary-out", "json-out"])
def test_tensors(client: Any, headers: dict[str, str], stack: Stack, binary_input: bool, binary_output: bool) -> None:
    wanted = outputs(binary=binary_output)
    answer = client.infer("minilm", texts(binary=binary_input), outputs=wanted, headers=headers, request_id="mine")
    direct = triton.InferenceServerClient(f"127.0.0.1:{stack.settings.ports.triton_a.http}")
    with contextlib.closing(direct):
        expected = direct.infer("minilm", texts(binary=True))
    vectors = answer.as_numpy("EMBEDDING")
    assert vectors.shape == (2, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected.as_numpy("EMBEDDING"), atol=1e-4)
    assert answer.as_numpy("NUM_TOKENS").tolist() == expected.as_numpy("NUM_TOKENS").tolist()
    assert answer.get_response()["id"] == "mine"


def test_without_outputs_and_with_a_version(client: Any, headers: dict[str, str]) -> None:
    answer = client.infer("minilm", texts(binary=True), headers=headers, model_version="1")
    assert answer.as_numpy("EMBEDDING").shape == (2, 384)
    assert answer.get_response()["model_version"] == "1"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_answer_may_be_asked_for(client: Any, headers: dict[str, str], algorithm: str) -> None:
    answer = client.infer("minilm", texts(binary=True), headers=headers, response_compression_algorithm=algorithm)
    assert answer.as_numpy("EMBEDDING").shape == (2, 384)


def test_it_is_metered(client: Any, headers: dict[str, str], stack: Stack) -> None:
    with books_of(stack).accounted() as entries:
        answer = client.infer("minilm", texts(binary=True), headers=headers)
    event = entries.only
    assert (event["operation"], event["model"], event["pool"]) == ("infer", "minilm", "encoder")
    # The gateway's own count, as the answer of an inference reports none: exactly the encoder's.
    assert event["upstream_usage"] is False
    assert event["prompt_tokens"] == int(answer.as_numpy("NUM_TOKENS").sum())


@pytest.mark.parametrize(
    ("model", "version", "key", "status", "text"),
    [
        ("minilm", "", None, "401", "No API key was given"),
        ("minilm", "", "sk-xp-nobody", "401", "The API key is not valid"),
        ("no-such-model", "", "right", "404", "The model `no-such-model` does not exist"),
        ("demo-llm", "", "right", "400", "does not support infer"),
        ("minilm", "7", "right", "404", "The model `minilm` has no version 7"),
    ],
)
def test_errors_are_readable(
    client: Any, stack_key: str, model: str, version: str, key: str | None, status: str, text: str
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {stack_key if key == 'right' else key}"}
    with pytest.raises(InferenceServerException) as failed:
        client.infer(model, texts(binary=True), headers=headers, model_version=version)
    assert failed.value.status() == status
    assert text in failed.value.message()


def test_what_triton_finds_wrong_is_said(client: Any, headers: dict[str, str]) -> None:
    tensor = triton.InferInput("NO_SUCH_INPUT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"x"]], dtype=object))
    with pytest.raises(InferenceServerException) as failed:
        client.infer("minilm", [tensor], headers=headers)
    assert failed.value.status() == "400"
    assert "NO_SUCH_INPUT" in failed.value.message()


def test_health_needs_no_key(client: Any, stack: Stack) -> None:
    with books_of(stack).accounted() as entries:
        assert client.is_server_live() is True
        assert client.is_server_ready() is True
        with pytest.raises(InferenceServerException) as failed:
            client.get_server_metadata()
    assert failed.value.status() == "401"
    assert entries.only["reason"] == "unauthenticated"


def test_the_server_is_the_gateway(client: Any, headers: dict[str, str]) -> None:
    expected = {"name": "extproc", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert client.get_server_metadata(headers=headers) == expected


@pytest.mark.parametrize("version", ["", "1"])
def test_a_models_metadata_is_its_servers(client: Any, headers: dict[str, str], stack: Stack, version: str) -> None:
    direct = triton.InferenceServerClient(f"127.0.0.1:{stack.settings.ports.triton_a.http}")
    with contextlib.closing(direct):
        expected = direct.get_model_metadata("minilm")
    assert client.get_model_metadata("minilm", version, headers=headers) == expected
    assert client.is_model_ready("minilm", version, headers=headers) is True


def test_questions_are_on_record_apart_from_inference(client: Any, headers: dict[str, str], stack: Stack) -> None:
    with books_of(stack).accounted() as entries:
        client.is_model_ready("minilm", headers=headers)
    event = entries.only
    assert (event["operation"], event["model"], event["pool"]) == ("models", "minilm", "encoder")
    assert (event["termination"], event["prompt_tokens"], event["status"]) == ("COMPLETED", 0, 200)


@pytest.mark.parametrize(
    ("model", "version", "key", "status", "text"),
    [
        ("minilm", "", None, "401", "No API key was given"),
        ("no-such-model", "", "right", "404", "The model `no-such-model` does not exist"),
        ("demo-llm", "", "right", "400", "does not support infer"),
        ("minilm", "7", "right", "404", "The model `minilm` has no version 7"),
    ],
)
def test_what_may_not_be_asked(
    client: Any, stack_key: str, model: str, version: str, key: str | None, status: str, text: str
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {stack_key}"}
    with pytest.raises(InferenceServerException) as failed:
        client.get_model_metadata(model, version, headers=headers)
    assert failed.value.status() == status
    assert text in failed.value.message()
    assert client.is_model_ready(model, version, headers=headers) is False


def test_a_key_for_other_models_learns_nothing(client: Any, stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {stack.create_key('chats only', models=('demo-llm',))}"}
    with pytest.raises(InferenceServerException) as failed:
        client.get_model_metadata("minilm", headers=headers)
    assert failed.value.status() == "403"


OPERATORS = {
    "config": lambda client, headers: client.get_model_config("minilm", headers=headers),
    "statistics": lambda client, headers: client.get_inference_statistics("minilm", headers=headers),
    "every statistic": lambda client, headers: client.get_inference_statistics(headers=headers),
    "repository": lambda client, headers: client.get_model_repository_index(headers=headers),
    "load": lambda client, headers: client.load_model("minilm", headers=headers),
    "unload": lambda client, headers: client.unload_model("minilm", headers=headers),
    "trace": lambda client, headers: client.get_trace_settings(headers=headers),
    "logging": lambda client, headers: client.update_log_settings({"log_verbose_level": 1}, headers=headers),
    "shared memory": lambda client, headers: client.get_system_shared_memory_status(headers=headers),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_the_operators_is_not_served(client: Any, headers: dict[str, str], name: str) -> None:
    with pytest.raises(InferenceServerException) as failed:
        OPERATORS[name](client, headers)
    assert failed.value.status() in ("404", "405")
