"""An OpenAI-speaking upstream in a process of its own, which does as the prompt says.

`[[tokens=N]]` how long the answer is, `[[gap_ms=N]]` between its pieces (a whole answer waits for all of them),
`[[fail]]` a 500, `[[die]]` the connection is closed in mid-answer. Usage is reported as in OpenAI's API.
Run: `python -m tests.helpers.llm PORT`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

PROMPT_TOKENS = 11


async def serve(port: int) -> None:
    server = await asyncio.start_server(_connection, "127.0.0.1", port)
    await server.serve_forever()


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await _exchange(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request and its answer; whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if head.startswith("get"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True
    asked = json.loads(await _body(reader, head))
    text = str(asked["messages"][-1]["content"])
    tokens, gap_s = _number(text, "tokens", 5), _number(text, "gap_ms", 0) / 1000
    if "[[fail]]" in text:
        await asyncio.sleep(gap_s)
        _whole(writer, 500, {"error": {"message": "no", "type": "server_error", "param": None, "code": None}})
        return True
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}
    if asked.get("stream"):
        return await _stream(writer, tokens, gap_s, usage, dies="[[die]]" in text)
    await asyncio.sleep(gap_s * tokens)
    message = {"role": "assistant", "content": "word " * tokens}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    _whole(writer, 200, {**_answer("chat.completion"), "choices": [choice], "usage": usage})
    return True


async def _stream(writer: asyncio.StreamWriter, tokens: int, gap_s: float, usage: Any, *, dies: bool) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for number in range(tokens):
        _event(writer, {"content": "word "}, "stop" if number == tokens - 1 and not dies else None)
        await writer.drain()
        await asyncio.sleep(gap_s)
    if dies:
        return False
    _chunk(writer, {**_answer("chat.completion.chunk"), "choices": [], "usage": usage})
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    return True


def _event(writer: asyncio.StreamWriter, delta: dict[str, str], finish: str | None) -> None:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    _chunk(writer, {**_answer("chat.completion.chunk"), "choices": [choice]})


def _chunk(writer: asyncio.StreamWriter, content: dict[str, Any]) -> None:
    data = b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def _whole(writer: asyncio.StreamWriter, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _answer(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "up"}


def _number(text: str, name: str, default: int) -> int:
    found = re.search(rf"\[\[{name}=(\d+)\]\]", text)
    return int(found[1]) if found else default


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    if "transfer-encoding: chunked" not in head:
        return await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
