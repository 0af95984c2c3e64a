"""A gateway with pools that stand in for one another: `main`, then `spare` (the same model), then `small` (another
model, in another dialect)."""

import json
import textwrap
from dataclasses import dataclass
from typing import Any

from tests.helpers.accounting import Books
from tests.helpers.failing import CHAT
from tests.helpers.raw_http import Answer, exchange, request
from tests.helpers.scripted_upstream import Call, ScriptedUpstream
from tests.helpers.services import KEY, ServedGateway

_LLM = "tokenizer: {type: tiktoken, encoding: cl100k_base}, chat_template: chatml"
MODELS = f"""
main: {{pool: main, operations: [chat], context_window: 4096, price: {{output_per_mtok: "10.00"}}, {_LLM}}}
small: {{pool: small, operations: [chat], context_window: 100, price: {{output_per_mtok: "1.00"}}, {_LLM}}}
twins: {{pool: twins, operations: [chat], context_window: 4096, {_LLM}}}
lonely: {{pool: lonely, operations: [chat], context_window: 4096, {_LLM}}}
narrow: {{pool: narrow, operations: [chat], context_window: 4096, {_LLM}}}
fragile: {{pool: fragile, operations: [chat], context_window: 4096, {_LLM}}}
tensors: {{pool: tensors, operations: [infer], context_window: 4096}}
"""
RETRIES = 3


def pools(main: int, twin: int, spare_port: int, small: int) -> str:
    """The `pools` before servers on these ports. Only `fragile` ejects anything."""

    def clusters(*ports: int) -> str:
        return "{a: {endpoints: [" + ", ".join(f'"127.0.0.1:{port}"' for port in ports) + "]}}"

    steady = "outlier_detection: {consecutive_5xx: 1000}"
    fragile = "{consecutive_5xx: 3, ejection_s: 60}"
    openai = "dialect: openai, model: large"
    spare, both = "fallback: [{pool: spare}]", "fallback: [{pool: spare}, {pool: small, public_model: small}]"
    return textwrap.dedent(f"""
        main: {{{openai}, clusters: {clusters(main)}, idle_timeout_s: 1, {steady}, {both}}}
        spare: {{{openai}, clusters: {clusters(spare_port)}, idle_timeout_s: 5, {steady}}}
        small: {{dialect: triton-generate, model: tiny, clusters: {clusters(small)}, idle_timeout_s: 1, {steady}}}
        twins: {{{openai}, clusters: {clusters(main, twin)}, retries: 1, {steady}}}
        lonely: {{{openai}, clusters: {clusters(main)}, retries: {RETRIES}, {steady}}}
        narrow: {{{openai}, clusters: {clusters(main)}, {steady}, circuit_breaker: {{max_requests: 1}}, {spare}}}
        fragile: {{{openai}, clusters: {clusters(main)}, retries: 0, outlier_detection: {fragile}, {spare}}}
        tensors: {{dialect: kserve, model: t, clusters: {clusters(main)}, {steady}, fallback: [{{pool: tensors2}}]}}
        tensors2: {{dialect: kserve, model: t2, clusters: {clusters(spare_port)}, {steady}}}
        """)


@dataclass
class World:
    gateway: ServedGateway
    main: ScriptedUpstream
    twin: ScriptedUpstream
    spare: ScriptedUpstream
    small: ScriptedUpstream

    @property
    def books(self) -> Books:
        return self.gateway.books

    def ask(self, model: str = "main", text: str = "Hello!", headers: str = "", **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return exchange(self.gateway.port, request(CHAT, json.dumps(body).encode(), key=KEY, headers=headers))


def generate(call: Call) -> None:
    """A good answer of Triton's generate endpoints: whole or streamed, as asked."""
    piece = {"text_output": "small talk", "finish_reason": "stop", "num_input_tokens": 7, "num_output_tokens": 3}
    if call.path.endswith("generate_stream"):
        call.start(200, "text/event-stream")
        call.chunk(b"data: " + json.dumps(piece).encode() + b"\n\n")
        call.chunk(b"")
    else:
        call.answer(200, json.dumps(piece).encode())


def said(answer: Answer) -> str:
    """The text of a chat answer, whole or streamed."""
    if not answer.body.startswith(b"data: "):
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text
    events = [line[6:] for line in answer.body.split(b"\n\n") if line]
    assert events.pop() == b"[DONE]"
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)
