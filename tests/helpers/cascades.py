"""A gateway that tries `small` before `large`, whose server `spare` stands in for, and scripts of servers that tell how
sure they are."""

import json
import textwrap
from dataclasses import dataclass
from typing import Any

from tests.helpers.accounting import Books
from tests.helpers.failing import CHAT
from tests.helpers.raw_http import Answer, exchange, request
from tests.helpers.scripted_upstream import Call, Script, ScriptedUpstream
from tests.helpers.services import KEY, ServedGateway

SURE, UNSURE = -0.05, -3.0
HOLD_TOKENS = 4
_LLM = "operations: [chat, completions], tokenizer: {type: tiktoken, encoding: cl100k_base}, chat_template: chatml"
MODELS = f"""
large: {{pool: large, context_window: 4096, price: {{input_per_mtok: "2.50", output_per_mtok: "10.00"}}, {_LLM}}}
small: {{pool: small, context_window: 200, price: {{input_per_mtok: "0.10", output_per_mtok: "0.40"}}, {_LLM}}}
"""
POLICIES = f"""
policies:
  route:
    rules:
      - {{name: strict, when: {{models: [large], headers: {{x-cascade: strict}}}}, to: {{cascade: strict}}}}
      - {{name: frugal, when: {{models: [large]}}, to: {{cascade: frugal}}}}
  content_filter: {{mode: enforce, rules: {{rivals: {{words: [Globex], action: redact}}}}}}
cascades:
  frugal: {{first: small, min_logprob: -0.5, hold_tokens: {HOLD_TOKENS}}}
  strict: {{first: small, min_logprob: -0.5, hold_tokens: {HOLD_TOKENS}, on_large_failure: error}}
"""


def pools(small: int, large: int, spare: int) -> str:
    """The `pools` before servers on these ports."""

    def pool(port: int, more: str = "") -> str:
        clusters = f'{{a: {{endpoints: ["127.0.0.1:{port}"]}}}}'
        return (
            f"{{dialect: openai, model: up, clusters: {clusters}, outlier_detection: {{consecutive_5xx: 1000}}{more}}}"
        )

    return textwrap.dedent(f"""
        small: {pool(small, ", retries: 0")}
        large: {pool(large, ", retries: 0, fallback: [{pool: spare}]")}
        spare: {pool(spare, ", retries: 0")}
        """)


@dataclass
class World:
    gateway: ServedGateway
    small: ScriptedUpstream
    large: ScriptedUpstream
    spare: ScriptedUpstream

    @property
    def books(self) -> Books:
        return self.gateway.books

    def ask(self, text: str = "Hello!", headers: str = "", **more: Any) -> Answer:
        body = {"model": "large", "messages": [{"role": "user", "content": text}], **more}
        return exchange(self.gateway.port, request(CHAT, json.dumps(body).encode(), key=KEY, headers=headers))


def says(*words: str, logprob: float | None = SURE, usage: tuple[int, int] | None = (7, 3)) -> Script:
    """These words, whole or streamed, as asked; each as probable as that."""

    def script(call: Call) -> None:
        if json.loads(call.seen.body).get("stream"):
            call.start(200, "text/event-stream")
            for word in words:
                call.chunk(piece(word, logprob))
            call.chunk(piece("", None, "stop"))
            if usage is not None:
                call.chunk(event({"choices": [], "usage": _usage(*usage)}))
            call.chunk(b"data: [DONE]\n\n")
            call.chunk(b"")
        else:
            call.answer(200, whole(words, logprob, usage))

    return script


def piece(word: str, logprob: float | None, finish_reason: str | None = None) -> bytes:
    """One event of a streamed chat."""
    choice = {"index": 0, "delta": {"content": word}, "logprobs": _logprobs([word], logprob)}
    return event({"choices": [{**choice, "finish_reason": finish_reason}]})


def event(fields: dict[str, Any]) -> bytes:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    return b"data: " + json.dumps({**head, **fields}).encode() + b"\n\n"


def whole(words: tuple[str, ...], logprob: float | None, usage: tuple[int, int] | None) -> bytes:
    """A whole chat answer."""
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "logprobs": _logprobs(words, logprob), "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice]}
    return json.dumps(answer | ({} if usage is None else {"usage": _usage(*usage)})).encode()


def _logprobs(words: tuple[str, ...] | list[str], logprob: float | None) -> dict[str, Any] | None:
    return None if logprob is None else {"content": [{"token": word, "logprob": logprob} for word in words]}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
