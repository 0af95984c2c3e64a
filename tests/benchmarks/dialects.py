"""What parsing, translating and counting cost in µs, best of five: `python -m tests.benchmarks.dialects`."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from functools import partial

from extproc.config.models import TiktokenTokenizer
from extproc.dialects.interface import AnswerIdentity, RequestHead, TokenTotals, UpstreamModel
from extproc.dialects.openai_api import CHAT
from extproc.dialects.registry import pool_dialect
from extproc.tokenization import load

HEAD = RequestHead("POST", "/v1/chat/completions", {})
IDENTITY = AnswerIdentity("0b7f", 1700000000, "public-model")
EVENT_STREAM = "text/event-stream"


def chat_body(size_bytes: int) -> bytes:
    sentence = "The quick brown fox jumps over the lazy dog near 3 rivers. "
    turn = sentence * max(size_bytes // 5 // len(sentence), 1)
    messages = [{"role": "system", "content": turn}] + [{"role": "user", "content": turn} for _ in range(4)]
    return json.dumps(
        {"model": "public-model", "messages": messages, "temperature": 0.7, "max_tokens": 64, "stream": True}
    ).encode()


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
    content = {
        "id": "chatcmpl-abc",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "upstream/model",
        "choices": [choice],
    }
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def triton_event(text: str) -> bytes:
    content = {
        "finish_reason": "None",
        "model_name": "demo_llm",
        "model_version": "1",
        "num_input_tokens": 3,
        "num_output_tokens": 1,
        "text_output": text,
    }
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def report(what: str, call: Callable[[], object], number: int = 2000) -> None:
    best_s = min(timeit.repeat(call, number=number, repeat=5)) / number
    print(f"{what:<58}{best_s * 1e6:>10.1f} µs")


def requests() -> None:
    tokenizer = load(TiktokenTokenizer(type="tiktoken", encoding="cl100k_base"), "chatml")
    model = UpstreamModel("upstream/model", 64, tokenizer.render_chat)
    for size_bytes, number in ((2048, 2000), (1 << 20, 20)):
        body = chat_body(size_bytes)
        request = CHAT.parse(HEAD, body)
        kilobytes = f"{len(body) / 1024:.0f} KB chat: "
        report(kilobytes + "parse", partial(CHAT.parse, HEAD, body), number)
        report(kilobytes + "texts", request.texts, number)
        for name in ("openai", "triton-generate"):
            dialect = pool_dialect(name)
            report(kilobytes + f"check for {name}", partial(dialect.check, request), number)
            report(kilobytes + f"encode for {name}", partial(dialect.encode, request, model), number)
        report(kilobytes + "render chatml", partial(tokenizer.render_chat, request), number)
        report(kilobytes + "count tokens (cl100k_base)", partial(tokenizer.count_request, request), number // 10)


def streams() -> None:
    request = CHAT.parse(HEAD, chat_body(2048))
    for name, data in (("openai", chunk(" word")), ("triton-generate", triton_event(" word"))):
        decoder = pool_dialect(name).decoder(request, 200, EVENT_STREAM)
        encoder = CHAT.encoder(request, IDENTITY, TokenTotals())
        encoder.encode(decoder.feed(data))
        report(f"{name} chunk: decode", partial(decoder.feed, data))
        report(f"{name} chunk: encode", partial(encoder.encode, decoder.feed(data)))


if __name__ == "__main__":
    requests()
    streams()
