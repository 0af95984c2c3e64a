"""Other pools for a request whose own pool failed it before a word of an answer, or gave none that is good enough.

The exchange is the same one: its caller, reservation, usage event and policies; only the question is put into another
pool's dialect and asked again, through Envoy. Owns which pools can serve, in which order, and what they are asked.

Must not know: when a pool has failed, or what becomes of the events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from msgspec import Struct

from extproc.clock import Clock
from extproc.dialects.answer import AnswerEvent, Failed
from extproc.dialects.interface import AnswerDecoder, InvalidRequest, UpstreamCall
from extproc.errors import DependencyError
from extproc.policies.context import RequestContext, Served
from extproc.policies.count_tokens import measure
from extproc.policies.limit_expected import expected_tokens
from extproc.rejection import Rejection, upstream_failed
from extproc.routing.catalog import Catalog, Fallback, Pool
from extproc.routing.endpoint_book import EndpointBook
from extproc.routing.endpoints import Choice, choose
from extproc.routing.pool_calls import PoolAnswer, PoolCalls
from extproc.telemetry.metrics import Metrics

STAMP = "x-extproc-pool"
"""The request header that generated routes match on. Clients can't set it: Envoy strips theirs before we see them."""

ENDPOINT = "x-gateway-destination-endpoint"
"""The request header with the endpoints for Envoy to try, in order, where the service chooses them. As the stamp."""

_NAME = "fallback"
# Of one hop, or about the body as the client sent it, or Envoy's own.
_NOT_PASSED_ON = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "te",
     "trailer", "expect", "http2-settings"}
)  # fmt: skip
# Of an answer that nobody reads, what its client needs to.
_OF_THE_BODY = ("content-type", "inference-header-content-length")


Batches = AsyncGenerator[tuple[Sequence[AnswerEvent], bool], None]
"""Events of an answer, each batch with whether it is the last."""


class _Question(Struct):
    """What another pool is asked. `prompt_tokens` by its own model's tokenizer, where it serves another one."""

    served: Served
    call: UpstreamCall
    prompt_tokens: int | None


def failure_before_answer(events: Sequence[AnswerEvent]) -> Rejection | None:
    """Why there is no answer, if these are the first events of one and the client is not to blame. What the server said
    before it failed nobody has seen yet."""
    for event in events:
        if type(event) is Failed:
            return event.rejection if event.rejection.status >= 500 else None
    return None


class OtherPools:
    """The fallbacks of one configuration version."""

    def __init__(
        self,
        catalog: Catalog,
        calls: PoolCalls,
        metrics: Metrics,
        endpoints: EndpointBook | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._catalog = catalog
        self._calls = calls
        self._metrics = metrics
        self._endpoints = EndpointBook() if endpoints is None else endpoints
        self._clock = clock or Clock()

    async def answer(self, ctx: RequestContext) -> Batches:
        """What the first pool says that begins to answer; nothing when none does. Writes `ctx.served` before that."""
        for fallback in self._others(ctx):
            outcome = "unfit"
            question = await _question(ctx, fallback)
            if question is not None:
                outcome = "failed"
                async with aclosing(self._ask(ctx, question)) as batches:
                    async for events, last in batches:
                        if ctx.served is None:
                            if failure_before_answer(events) is not None:
                                break
                            outcome = "answered"
                            self._note(ctx, fallback, outcome)
                            _now_serves(ctx, question)
                        yield events, last
            if outcome == "answered":
                return
            self._note(ctx, fallback, outcome)

    def _others(self, ctx: RequestContext) -> Sequence[Fallback]:
        """After a cascade's small model, the pool of the one that was asked for, and what stands in for that."""
        failed = _failed(ctx)
        standing_in = self._catalog.fallbacks.get(failed.name, ())
        return (Fallback(failed), *standing_in) if ctx.escalated else standing_in

    def _note(self, ctx: RequestContext, fallback: Fallback, outcome: str) -> None:
        failed = _failed(ctx)
        if fallback.pool is not failed:
            self._metrics.routing.fell_back(failed.name, fallback.pool.name, outcome)

    async def _ask(self, ctx: RequestContext, question: _Question) -> Batches:
        call, pool = question.call, question.served.pool
        body = ctx.body if call.body is None else call.body
        headers, choice = _headers(ctx, question), self._choose(ctx, pool)
        if choice is not None:
            headers[ENDPOINT] = ",".join(choice.order)
        try:
            async with self._calls.ask(ctx.head.method, call.path, headers, body) as answer:
                decoder = pool.dialect.decoder(ctx.request, answer.status, answer.headers.get("content-type", ""))
                question.served.body_headers = _body_headers(answer.headers)
                if choice is not None:
                    choice.answered(answer.status, answer.endpoint, self._clock.monotonic())
                async with aclosing(_decoded(answer, decoder)) as batches:
                    async for events, last in batches:
                        self._note_begun(choice, failure_before_answer(events) is not None)
                        yield events, last
        except DependencyError:
            self._note_begun(choice, True)
            yield [Failed(upstream_failed("The model server's answer broke off."))], True
        finally:
            if choice is not None:
                choice.release()

    def _note_begun(self, choice: Choice | None, failed: bool) -> None:
        if choice is not None:
            choice.begun(failed, self._clock.monotonic())

    def _choose(self, ctx: RequestContext, pool: Pool) -> Choice | None:
        endpoints = self._endpoints.of(pool.name)
        if endpoints is None:
            return None
        return choose(endpoints, max(1, expected_tokens(ctx)), self._clock.monotonic())


def _failed(ctx: RequestContext) -> Pool:
    """The pool for which others stand in."""
    assert ctx.pool is not None, "what was not sent to a pool has not failed there"
    return ctx.model.pool if ctx.escalated else ctx.pool


async def _decoded(answer: PoolAnswer, decoder: AnswerDecoder) -> Batches:
    async for data in answer.chunks:
        events = decoder.feed(data)
        if events:
            yield events, False
    yield decoder.finish(), True


async def _question(ctx: RequestContext, fallback: Fallback) -> _Question | None:
    """None: this pool can't take it."""
    request, pool = ctx.request, fallback.pool
    model = fallback.model or ctx.model
    if pool.dialect.check(request) is not None:
        return None
    prompt_tokens, output_tokens = ctx.prompt_tokens, ctx.default_output_tokens
    if fallback.model is not None:
        try:
            measured = await measure(ctx, model)
        except InvalidRequest:
            return None
        if isinstance(measured, Rejection):
            return None
        prompt_tokens, output_tokens = measured
    call = pool.dialect.encode(request, model.upstream(pool, output_tokens))
    return _Question(Served(pool, model), call, prompt_tokens)


def _now_serves(ctx: RequestContext, question: _Question) -> None:
    ctx.served = question.served
    if ctx.choice is not None:
        ctx.choice.release()
    if question.served.pool is not _failed(ctx):
        ctx.not_for_others.add(_NAME)  # kept under the name of the pool that did not answer, it stays when that does
    if question.prompt_tokens is not None and not ctx.progress.upstream_usage:
        ctx.progress.totals.prompt_tokens = question.prompt_tokens


def _headers(ctx: RequestContext, question: _Question) -> dict[str, str]:
    """The client's, as Envoy sends them to any pool: what is secret is removed by the route."""
    call = question.call
    kept = {
        name: value
        for name, value in ctx.head.headers.items()
        if not name.startswith((":", "x-envoy-")) and name not in _NOT_PASSED_ON and value.isascii()
    }
    for name in call.remove_headers:
        kept.pop(name, None)
    kept["host"] = ctx.head.headers.get(":authority", "gateway")
    return {**kept, **dict(call.set_headers), STAMP: question.served.pool.name}


def _body_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, headers[name]) for name in _OF_THE_BODY if name in headers)
