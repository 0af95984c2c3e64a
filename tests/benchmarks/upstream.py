"""An OpenAI-speaking upstream that costs nothing: `upstream.py PORT CHUNKS GAP_S`.

A request gets a fixed chat completion; with `"stream":true` in its body it gets CHUNKS one-token events, GAP_S apart
(GAP_S > 0 keeps each event a message of its own).
"""

from __future__ import annotations

import asyncio
import sys

COMPLETION = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"word " * 60 + b'"},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":500,"completion_tokens":60,"total_tokens":560}}'
)
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(COMPLETION),
    COMPLETION,
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(content: bytes, finish: bytes = b"null") -> bytes:
    data = (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":%s}]}\n\n' % (content, finish)
    )
    return _chunk(data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


USAGE = _chunk(
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":500,"completion_tokens":60,"total_tokens":560}}\n\n'
)


class Upstream(asyncio.Protocol):
    """One keep-alive connection; requests come one at a time, as Envoy sends them."""

    chunks, gap_s = 100, 0.001

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""
        self._task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or not _body_complete(head.lower(), body):
            return
        self._received = b""
        if head.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        elif b'"stream":true' in body:
            self._task = asyncio.get_running_loop().create_task(self._stream())
        else:
            self._transport.write(WHOLE)

    async def _stream(self) -> None:
        self._transport.write(STREAM_HEAD)
        for _ in range(self.chunks - 1):
            self._transport.write(_event(b"word "))
            await asyncio.sleep(self.gap_s)
        self._transport.write(_event(b"end", b'"stop"') + USAGE + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _body_complete(head: bytes, body: bytes) -> bool:
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    Upstream.chunks, Upstream.gap_s = int(sys.argv[2]), float(sys.argv[3])
    asyncio.run(serve(int(sys.argv[1])))
