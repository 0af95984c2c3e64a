"""What makes two requests the same for a cache.

Everything that is not known to be irrelevant goes in: who asks (the tenant, and its tier, by which policies may
differ), what serves (model, pool, its upstream's name and revision, the arm of an experiment), the settings of every
policy that can change an answer, and the request's essence. Must not know: where answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from extproc.dialects.answer import Delta, Embedding, Usage
from extproc.policies.context import RequestContext

_FORMAT = (1, Delta.__struct_fields__, Embedding.__struct_fields__, Usage.__struct_fields__)
"""What is kept was written by a version of this program that knew the same: older ones' is never found."""

_pack = msgspec.msgpack.Encoder().encode
Digest = Callable[[bytes], str]


class Surroundings(Struct, frozen=True):
    """A chat whose last turn is a user's text: `digest` of everything but that text, and the text."""

    digest: str
    question: str


def identity(ctx: RequestContext, answers_version: str, tenant: str, namespace: str) -> list[Any]:
    """Everything but the request itself, and the cap on its answer that follows from its length (`exact` has it)."""
    model, pool = ctx.model, ctx.pool
    return [
        _FORMAT,
        tenant,
        namespace,
        ctx.principal.tier,
        ctx.operation,
        model.name,
        model.version,
        None if pool is None else (pool.name, *pool.version),
        ctx.arm,  # arms that share a pool are compared, so they don't share answers
        # What a small model may have answered is not for requests that go straight to the large one.
        None if ctx.cascading is None else (ctx.cascading.cascade.version, model.pool.name, *model.pool.version),
        answers_version,
    ]


def exact(essence: dict[str, Any], around: list[Any], default_output_tokens: int, digest: Digest) -> str:
    """The digest of a whole request, with its `identity` around it, and the cap that it gets where it sets none."""
    return digest(_pack(["exact", around, default_output_tokens, essence]))


def surroundings(essence: dict[str, Any], around: list[Any], digest: Digest) -> Surroundings | None:
    """None: it is no chat, or its last turn is not a user's text alone.

    The cap that a request gets where it sets none differs with its length; it does not matter here, because no answer
    that a cap cut is kept.
    """
    messages = essence.get("messages")
    if not messages or messages[-1]["role"] != "user":
        return None
    *earlier, last = messages
    content = last["content"]
    if type(content) is list and len(content) == 1 and content[0]["type"] == "text":
        content, last = content[0]["text"], {**last, "content": [{**content[0], "text": None}]}
    else:
        last = {**last, "content": None}
    if type(content) is not str:
        return None
    return Surroundings(digest(_pack(["turn", around, {**essence, "messages": [*earlier, last]}])), content)
