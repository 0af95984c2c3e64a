"""What OpenAI's own client makes of our bytes."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import openai
import pytest

from extproc.dialects.answer import AnswerEvent, Delta, Done, Embedding, Failed
from extproc.dialects.interface import AnswerIdentity, RequestHead, TokenTotals
from extproc.dialects.registry import resolve
from extproc.rejection import Rejection, model_not_found, overloaded, upstream_failed


class Gateway:
    """A server that parses with our APIs and answers with `events`, or refuses."""

    def __init__(self) -> None:
        self.events: tuple[AnswerEvent, ...] = ()
        self.rejection: Rejection | None = None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def _handler(gateway) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: N805 (the handler has a self)
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, content_type, answer = gateway.serve(RequestHead("POST", self.path, {}), body)
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def serve(self, head: RequestHead, body: bytes) -> tuple[int, str, bytes]:
        api = resolve(head).api
        assert api is not None
        if self.rejection is not None:
            return self.rejection.status, "application/json", api.error(self.rejection)
        encoder = api.encoder(api.parse(head, body), AnswerIdentity("1", 5, "public"), TokenTotals(3, 2))
        return 200, encoder.content_type or "", encoder.encode(self.events)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    started = Gateway()
    thread = threading.Thread(target=started.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield started
    started.server.shutdown()
    started.server.server_close()
    thread.join()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    gateway.events, gateway.rejection = HI, None
    host, port = gateway.server.server_address[:2]
    with openai.OpenAI(base_url=f"http://{host!s}:{port}/v1", api_key="k", max_retries=0) as client:
        yield client


HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
HI = (Delta(text="Hi"), Delta(text="!", finish_reason="stop"), Done())


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=HELLO)
    assert answer.choices[0].message.content == "Hi!"
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


def test_streamed_chat_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hi!"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 3
    assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}


def test_an_error_inside_a_stream_is_raised(client: openai.OpenAI, gateway: Gateway) -> None:
    gateway.events = (Delta(text="Hi"), Failed(upstream_failed("it broke")))
    stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)
    texts: list[str | None] = []
    with pytest.raises(openai.APIError, match="it broke") as caught:  # noqa: PT012 (the loop raises)
        for chunk in stream:
            texts.append(chunk.choices[0].delta.content)  # noqa: PERF401
    assert texts == ["", "Hi"]
    assert caught.value.code == "upstream_error"


def test_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model="m", prompt="p").choices[0].text == "Hi!"
    stream = client.completions.create(model="m", prompt="p", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Hi!"


def test_embeddings_which_the_client_asks_for_in_base64(client: openai.OpenAI, gateway: Gateway) -> None:
    gateway.events = (Embedding(0, [0.5, -1.0]), Done())
    answer = client.embeddings.create(model="m", input="x")
    assert answer.data[0].embedding == [0.5, -1.0]
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("rejection", "error"),
    [
        (model_not_found("m"), openai.NotFoundError),
        (overloaded("full", "x"), openai.InternalServerError),
        (upstream_failed("broke"), openai.InternalServerError),
    ],
)
def test_refusals(
    client: openai.OpenAI, gateway: Gateway, rejection: Rejection, error: type[openai.APIStatusError]
) -> None:
    gateway.rejection = rejection
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="m", messages=HELLO)
    assert caught.value.code == rejection.code
