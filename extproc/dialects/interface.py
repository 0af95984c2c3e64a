"""What a client API and a pool's dialect must offer. The only types the rest of the house knows of a wire format.

Any client API works over any dialect because both sides speak `InferenceRequest` and `AnswerEvent`.
Pure functions over bytes: nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, StrEnum
from typing import Any, Protocol

from msgspec import Struct

from extproc.dialects.answer import AnswerEvent
from extproc.operation import Operation
from extproc.rejection import Rejection


class InvalidRequest(Exception):
    """A body that can't be understood. Raised by parsers only, and turned into a `Reject` by the policy that parses."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


class RequestHead(Struct, frozen=True):
    """Method, path (with query) and headers of the client's request; header names in lower case. `claims`: those of a
    token that Envoy has verified, by its issuer's name in the configuration."""

    method: str
    path: str
    headers: dict[str, str]
    claims: dict[str, dict[str, str]] = {}


class Notation(Enum):
    """How a text is written: as it is, as JSON (a tool call's arguments), or as a name without spaces or brackets."""

    PLAIN = "plain"
    JSON = "json"
    NAME = "name"


class Unread(StrEnum):
    """What a request can hold that nobody here reads."""

    TOKEN_IDS = "token_ids"  # noqa: S105 (no password)
    MEDIA = "media"  # images, audio, files, bytes that are no text


class TextSegment(Struct):
    """One piece of text a client sent: `role` is system, user, assistant, tool, input (prompts, embeddings) or label.

    `locator` is opaque to everyone but the request that made it; it says where `replace_texts` puts new text.
    """

    role: str
    text: str
    locator: tuple[int | str, ...]
    notation: Notation = Notation.PLAIN


class InferenceRequest(Protocol):
    """A parsed request, independent of the client API.

    `output_limit_tokens` is the largest cap the request sets on output per choice (max_tokens,
    max_completion_tokens), None when it sets none. `include_usage`: the client asked to see streamed usage.
    """

    operation: Operation
    model: str
    stream: bool
    include_usage: bool
    choices: int
    output_limit_tokens: int | None

    def texts(self) -> Sequence[TextSegment]:
        """Every text in the request, in order (messages, tool results and arguments, prompts, inputs)."""

    def labels(self) -> Sequence[TextSegment]:
        """What is no part of the prompt but may name somebody: message names, `user`, `metadata`."""

    def unread(self) -> frozenset[Unread]:
        """What is in the request besides its texts."""

    def replace_texts(self, changed: Sequence[TextSegment]) -> None:
        """Put changed texts back where they came from."""

    def essence(self) -> dict[str, Any] | None:
        """All of it that can change its answer, in OpenAI's names (a chat has its `messages`), equal for requests that
        ask for the same, whatever the API. None: nobody can tell, or its answer can't be told by `AnswerEvent`s."""


class UpstreamModel(Struct, frozen=True):
    """What a dialect needs to know to encode a request: upstream name, output cap when the client set none, how
    to render a chat into one prompt string (None: the upstream applies its own template), and whether the gateway wants
    to know how probable each token of the answer was, though the client may not."""

    name: str
    default_output_tokens: int
    render_chat: Callable[[InferenceRequest], str] | None = None
    wants_logprobs: bool = False


class UpstreamCall(Struct, frozen=True):
    """The request as the pool gets it. `body` None: the client's bytes go on unchanged."""

    path: str
    body: bytes | None
    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()


class AnswerDecoder(Protocol):
    """Bytes of one upstream answer -> events. Any split of the bytes gives the same events."""

    def feed(self, data: bytes) -> list[AnswerEvent]: ...

    def finish(self) -> list[AnswerEvent]:
        """The body ended. A truncated or unreadable answer yields `Failed`."""


class AnswerEncoder(Protocol):
    """Events -> bytes of the client's response."""

    @property
    def content_type(self) -> str | None:
        """None: the upstream's own stands (answers that pass through unread)."""

    def encode(self, events: Sequence[AnswerEvent]) -> bytes:
        """Bytes to send now; a non-streamed answer gives all of them with `Done`."""


class AnswerIdentity(Struct, frozen=True):
    """What a client sees of an answer besides its content. `id` is the gateway's own; an encoder puts before it what
    its API wants there (`chatcmpl-`)."""

    id: str
    created_s: int
    model: str


class TokenTotals(Struct):
    """What the gateway counted or believes at the end; an encoder asks for it when the upstream sent no usage."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class ClientApi(Protocol):
    """One client API (OpenAI chat completions, embeddings, KServe infer, ...): one path, one body format.

    `operation` is what metrics and usage events call it: an Operation, or `models` for a question about one.
    """

    @property
    def operation(self) -> str: ...

    def parse(self, head: RequestHead, body: bytes) -> InferenceRequest:
        """Raises InvalidRequest."""

    def encoder(self, request: InferenceRequest, identity: AnswerIdentity, totals: TokenTotals) -> AnswerEncoder:
        """`totals` is shared and filled by the time the answer's end is encoded."""

    def error(self, rejection: Rejection) -> bytes:
        """The error body in this API's shape."""


class PoolDialect(Protocol):
    """The wire format a pool's servers speak."""

    operations: frozenset[Operation]

    def check(self, request: InferenceRequest) -> Rejection | None:
        """What this dialect can't carry is refused before anything is charged (400, naming the parameter)."""

    def encode(self, request: InferenceRequest, model: UpstreamModel) -> UpstreamCall: ...

    def decoder(self, request: InferenceRequest, status: int, content_type: str) -> AnswerDecoder:
        """A decoder for one response. A status >= 400 decodes to `Failed` with the upstream's message."""


class Route(Struct, frozen=True):
    """What a method and path mean: a client API, what the gateway knows of its models or of itself, what a
    user says of an answer, or nothing."""

    api: ClientApi | None = None
    lists_models: bool = False
    describes_server: bool = False
    takes_feedback: bool = False
    model_id: str | None = None
    rejection: Rejection | None = None

    @property
    def answered_here(self) -> bool:
        """The gateway knows the answer itself."""
        return self.lists_models or self.describes_server or self.model_id is not None
