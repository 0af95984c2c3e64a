"""Counts of whole requests, and loading what a configuration names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.config.models import HuggingfaceTokenizer, SentencepieceTokenizer, TemplateFile, TiktokenTokenizer
from extproc.dialects import kserve_api, openai_api
from extproc.dialects.interface import InferenceRequest, InvalidRequest, RequestHead
from extproc.tokenization import ModelTokenizer, load
from extproc.tokenization.counting import MEDIA_TOKENS
from tests.helpers.data import recordings

CL100K = TiktokenTokenizer(type="tiktoken", encoding="cl100k_base")
O200K = TiktokenTokenizer(type="tiktoken", encoding="o200k_base")
HEAD = RequestHead("POST", "/v2/models/m/infer", {})


@pytest.fixture(scope="module")
def chatml() -> ModelTokenizer:
    return load(CL100K, "chatml")


@pytest.fixture(scope="module")
def accounted() -> ModelTokenizer:
    return load(CL100K, "openai")


def chat(*messages: dict[str, Any], **fields: Any) -> InferenceRequest:
    return openai_api.CHAT.parse(HEAD, json.dumps({"model": "m", "messages": messages, **fields}).encode())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_chat_is_counted_as_its_prompt(chatml: ModelTokenizer) -> None:
    # <|im_start|> user \n Hello <|im_end|> \n <|im_start|> assistant \n
    assert chatml.count_request(chat(user("Hello"))) == 9
    assert chatml.render_chat(chat(user("Hello"))) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_forged_special_tokens_are_text_in_counts_and_prompts(chatml: ModelTokenizer) -> None:
    request = chat(user("<|im_end|>"))
    assert chatml.count_request(request) > chatml.count_request(chat(user("x")))
    assert chatml.render_chat(request).count("<|im_end|>") == 1
    assert chatml.count_text("<|im_end|>") > 1


def test_openais_own_accounting(accounted: ModelTokenizer) -> None:
    assert accounted.count_request(chat(user("Hello"))) == 3 + 1 + 1 + 3
    assert accounted.count_request(chat({**user("Hello"), "name": "ann"})) == 8 + 1 + accounted.count_text("ann")
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "Hello"}]
    assert accounted.count_request(chat(user(parts))) == 9


def test_openais_accounting_is_near_what_openai_counted() -> None:
    """The recorded model is newer than the published rule: one token off, either way."""
    tokenizer = load(O200K, "openai")
    counted = {}
    for recording in recordings():
        if recording.status != 200 or "chat" not in recording.name or "text/event-stream" in recording.content_type:
            continue
        request = openai_api.CHAT.parse(HEAD, recording.request)
        if "tools" not in json.loads(recording.request):
            prompt_tokens = json.loads(recording.answer)["usage"]["prompt_tokens"]
            counted[recording.name] = tokenizer.count_request(request) - prompt_tokens
    if not counted:
        pytest.skip("the sample data ../shared/data is not here")
    assert all(abs(difference) <= 1 for difference in counted.values())


@pytest.mark.parametrize("fixture", ["chatml", "accounted"])
def test_everything_in_a_chat_counts(fixture: str, request: pytest.FixtureRequest) -> None:
    tokenizer: ModelTokenizer = request.getfixturevalue(fixture)
    base = tokenizer.count_request(chat(user("Hello")))
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    tool = {"type": "function", "function": {"name": "look", "description": "Looks somewhere."}}
    assert tokenizer.count_request(chat(user("Hello"), tools=[tool])) > base + 5
    called = tokenizer.count_request(chat(user("Hello"), {"role": "assistant", "content": None, "tool_calls": [call]}))
    assert called > base + 7
    image = {"type": "image_url", "image_url": {"url": "x"}}
    pictured = tokenizer.count_request(chat(user([image, {"type": "text", "text": "Hello"}, image])))
    assert pictured == base + 2 * MEDIA_TOKENS


def test_prompts_and_inputs(chatml: ModelTokenizer) -> None:
    def completion(prompt: Any) -> int:
        body = json.dumps({"model": "m", "prompt": prompt}).encode()
        return chatml.count_request(openai_api.COMPLETIONS.parse(HEAD, body))

    assert completion("hello world") == 2
    assert completion(["hello world", "hello"]) == 3
    assert completion([1, 2, 3]) == 3
    assert completion([[1, 2], [3]]) == 3
    inputs = openai_api.EMBEDDINGS.parse(HEAD, b'{"model":"m","input":["hello world","hello"]}')
    assert chatml.count_request(inputs) == 3
    tensor = {"name": "T", "shape": [2], "datatype": "BYTES", "data": ["hello world", "hello"]}
    assert chatml.count_request(kserve_api.INFER.parse(HEAD, json.dumps({"inputs": [tensor]}).encode())) == 3


def test_replaced_texts_are_counted_and_rendered(chatml: ModelTokenizer) -> None:
    request = chat(user("Hello"))
    segment = request.texts()[0]
    segment.text = "Hello world"
    request.replace_texts([segment])
    assert chatml.count_request(request) == 10
    assert "Hello world" in chatml.render_chat(request)


def test_a_template_of_the_models_own(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    turn = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    path.write_text("{% for m in messages %}" + turn + "{% endfor %}<|im_start|>assistant\n\n")
    own = load(CL100K, TemplateFile(file=path))
    assert own.count_request(chat(user("Hello"))) == 9
    path.write_text("{% for %}")
    with pytest.raises(ValueError, match=r"template\.jinja is not a chat template"):
        load(CL100K, TemplateFile(file=path))


def test_the_token_in_front_is_counted_but_left_to_the_server() -> None:
    llama = load(CL100K, "llama3")
    assert llama.render_chat(chat(user("Hello"))).startswith("<|start_header_id|>user")
    # begin, (start, user, end, \n\n), Hello, eot, (start, assistant, end, \n\n)
    assert llama.count_request(chat(user("Hello"))) == 1 + 4 + 1 + 1 + 4


def test_without_a_template_there_is_no_prompt(accounted: ModelTokenizer) -> None:
    with pytest.raises(InvalidRequest):
        accounted.render_chat(chat(user("Hello")))


def test_what_a_configuration_names_must_fit(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("{}")
    with pytest.raises(ValueError, match="no chat template klingon; built in are chatml, llama3, openai"):
        load(CL100K, "klingon")
    for tokenizer in (
        TiktokenTokenizer(type="tiktoken", file=wrong, pattern="qwen"),
        HuggingfaceTokenizer(type="huggingface", file=wrong),
        SentencepieceTokenizer(type="sentencepiece", file=wrong),
    ):
        with pytest.raises(ValueError, match="wrong"):
            load(tokenizer, None)
