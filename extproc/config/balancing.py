"""How a pool's requests are shared out among its endpoints: `balancing` and `consistent_hash` of a pool.

Must not know: how any of it is said to Envoy, and what a key is made of.
"""

import enum
from typing import Annotated

import pydantic

from extproc.config.section import Section

_OURS = "x-extproc-"
HeaderName = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Balancing(enum.StrEnum):
    """How an endpoint is picked for one of a pool's requests. By Envoy: a cluster by its weight and then its endpoints
    in turn, or one of all the pool's endpoints in turn, the less busy of two, or the one that a key belongs to. By the
    service, which knows tokens: the one with the fewest of them pending, or the one whose GPUs have most to spare."""

    WEIGHTED = "weighted"
    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"
    CONSISTENT_HASH = "consistent_hash"
    LEAST_TOKENS = "least_tokens"
    GPU_AWARE = "gpu_aware"

    @property
    def is_ours(self) -> bool:
        """The service names the endpoint, and Envoy picks another only where that one fails."""
        return self in (Balancing.LEAST_TOKENS, Balancing.GPU_AWARE)


class HashBy(enum.StrEnum):
    """What requests have in common that go to the same endpoint: how their prompt begins, who calls (the API key), the
    `user` that the caller names, or a header of the client's."""

    PREFIX = "prefix"
    PRINCIPAL = "principal"
    USER = "user"
    HEADER = "header"


class HashTable(enum.StrEnum):
    """How keys are given to endpoints."""

    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


class ConsistentHash(Section):
    """The key of a request, and the endpoint that it belongs to."""

    by: HashBy = HashBy.PREFIX
    """What the key is made of: `prefix` (how the prompt begins), `principal` (the API key), `user` (what the request
    names so, apart for each team) or `header`. A request without it goes to any endpoint, by weight."""

    header: HeaderName | None = None
    """The client's header, in lower case, with `by: header`."""

    blocks: Annotated[int, pydantic.Field(ge=2, le=64)] = 2
    """With `by: prefix`, so many leading blocks of the prompt are the key; a shorter prompt has none."""

    block_bytes: Annotated[int, pydantic.Field(ge=64, le=65536)] = 2048
    """Size of a block. Together they should be longer than any system prompt that most requests share."""

    table: HashTable = HashTable.MAGLEV
    """How keys are given to endpoints: `maglev` or `ring_hash`."""

    max_load_percent: Annotated[int, pydantic.Field(ge=100, le=10_000)] | None = 150
    """An endpoint that has more than this share of the pool's mean requests in flight is passed over; null: never."""

    @pydantic.model_validator(mode="after")
    def _names_a_header_of_clients(self) -> "ConsistentHash":
        if (self.by is HashBy.HEADER) != (self.header is not None):
            raise ValueError("`header` goes with `by: header`")
        if self.header is not None and self.header.startswith(_OURS):
            raise ValueError(f"clients can't send {_OURS} headers")
        return self


_Share = Annotated[float, pydantic.Field(ge=0.0, le=100.0)]


class GpuAware(Section):
    """How busy an endpoint is: the sum of what its server says of itself and of the tokens pending there, each as a
    share of what makes it full, each times its weight here."""

    queue: _Share = 1.0
    """Weight of the requests that wait at the server, as a share of the pool's `full_queue`."""

    kv_cache: _Share = 1.0
    """Weight of the share of its KV cache in use."""

    gpu: _Share = 0.5
    """Weight of its GPUs' utilisation. A server that batches well has a busy GPU and room for more."""

    gpu_memory: _Share = 0.25
    """Weight of the share of its GPUs' memory in use. Servers that take all of it when they start say nothing by it."""

    tokens: _Share = 1.0
    """Weight of the tokens pending, which the gateway knows at once: what a server says may be seconds old."""

    full_tokens: Annotated[int, pydantic.Field(ge=1, le=1_000_000_000)] = 16_384
    """So many pending tokens count as a full endpoint."""
