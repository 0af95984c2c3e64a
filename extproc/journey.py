"""One exchange from its first event to its end: the exchange machine, the dialects and the policies at work together.

Owns the async driving and nothing else: what is legal now is `exchange`'s, what bytes mean is `dialects`', what is
decided is `policies`'. Must not know gRPC or protobuf.

    headers      resolve the path; head policies (identify)
    body ended   parse; request policies; encode for the pool; forward with our stamp
    response     decode the pool's answer to events; answer policies; encode for the client
    end          finalizers, once, in a task of their own so that they survive the client's leaving

The head of a response is held back until its first event, so that an error which a model server reports after its 200
still becomes a proper error for the client.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from extproc.dialects import feedback
from extproc.dialects.answer import AnswerEvent, Done, Failed
from extproc.dialects.interface import (
    AnswerDecoder,
    AnswerEncoder,
    AnswerIdentity,
    ClientApi,
    InvalidRequest,
    RequestHead,
    Route,
    TokenTotals,
)
from extproc.dialects.registry import error_body, resolve
from extproc.exchange.machine import Exchange
from extproc.exchange.messages import (
    Effect,
    End,
    Event,
    Forward,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    Respond,
    ResponseBody,
    ResponseHeaders,
    Send,
    StartResponse,
    WholeResponse,
)
from extproc.fallback import STAMP, OtherPools, failure_before_answer
from extproc.policies import interface as policy
from extproc.policies.account import facts_known_at_end, facts_known_at_forward
from extproc.policies.context import RequestContext
from extproc.policies.interface import Termination, Verdict
from extproc.policies.pipeline import Pipeline
from extproc.rejection import Rejection, internal_error, model_not_found, pool_not_reachable, request_too_large

AFFINITY = "x-extproc-affinity"
"""The request header by which Envoy chooses among a pool's endpoints, where the pool is balanced so. As the stamp."""

MIRROR_STAMP = "x-extproc-mirror"
"""The pool that gets a copy of the request, for the routes that mirror. As little for clients to set."""

# Length, encoding and tag of the upstream's body are not those of ours.
_NOT_OURS = ("content-length", "content-encoding", "etag")
# Of a failed answer's head, what stays although another pool answers: the rest spoke of the failure.
_KEPT_OF_FAILURES = frozenset({":status", "x-request-id", "date", "server"})
_RETRIABLE = (429, 503)
_RETRY_AFTER_S = 1
_MAX_RETRY_AFTER_S = 120
_JSON = ("content-type", "application/json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What an exchange needs of its process: one configuration version's pipeline, and where finalizers run."""

    pipeline: Pipeline
    limit_bytes: int
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    other_pools: OtherPools | None = None


class Journey:
    """Drives one exchange. `write` sends one reply to Envoy; `traceparent` is what Envoy says of its call."""

    def __init__(
        self, runtime: Runtime, write: Callable[[Reply], Awaitable[None]], traceparent: Callable[[], str] = str
    ) -> None:
        self._runtime = runtime
        self._pipeline = runtime.pipeline
        self._catalog = runtime.pipeline.services.catalog
        self._clock = runtime.pipeline.services.clock
        self._write = write
        self._exchange = Exchange(runtime.limit_bytes)
        self._ctx: RequestContext | None = None
        self._decoder: AnswerDecoder | None = None
        self._encoder: AnswerEncoder | None = None
        self._answering = False
        self._done = False
        self._failed_headers: tuple[str, ...] = ()
        self._busy_for_s = ""
        self._held = b""
        self._ending = Termination.CANCELLED
        self._closed = False
        self._trace = runtime.pipeline.services.tracer.begin(traceparent)
        runtime.pipeline.services.metrics.exchanges.in_flight.inc()

    async def receive(self, event: Event) -> bool:
        """Take one event from Envoy and write whatever replies it calls for. True: the exchange is over.

        Raises ProtocolError when Envoy breaks the contract. Any other error of ours becomes a 500 for the client where
        that is still possible, and is raised where it is not.
        """
        if not self._exchange.receive(event):
            return True
        began_s = self._clock.monotonic()
        try:
            await self._take(event, began_s)
        except Exception:
            if self._exchange.responding or self._exchange.finished or self._ctx is None:
                raise
            _log.exception("exchange failed", extra={"request_id": self._ctx.request_id})
            await self._refuse(internal_error(), Termination.INTERNAL_ERROR)
        return self._exchange.finished

    async def _take(self, event: Event, began_s: float) -> None:
        if isinstance(event, ResponseBody):
            await self._on_response_data(event.data, event.last)
        elif isinstance(event, RequestBody):
            await self._on_request_data(event.last, began_s)
        elif isinstance(event, RequestHeaders):
            await self._on_head(event, began_s)
        elif isinstance(event, ResponseHeaders):
            await self._on_response_head(event)
        elif isinstance(event, RequestTrailers):
            await self._on_request_data(True, began_s)
        else:
            await self._on_response_data(b"", True)

    def cancel(self) -> None:
        """Envoy gave the stream up. Before its end: the client left, or the upstream's connection broke mid-stream."""
        self._close(self._ending)

    def fail(self) -> None:
        """A bug of ours, or a contract that Envoy broke."""
        self._close(Termination.INTERNAL_ERROR)

    def _close(self, termination: Termination) -> None:
        """The exchange is over. Only the first call counts; finalizers run in their own task."""
        if self._closed:
            return
        self._closed = True
        if self._ctx is None:
            self._pipeline.services.metrics.exchanges.in_flight.dec()
        else:
            self._runtime.spawn(self._account_for(self._ctx, termination))

    async def _account_for(self, ctx: RequestContext, termination: Termination) -> None:
        """It is in flight until then: who sees that nothing is, sees all of it in the books, too."""
        try:
            await self._pipeline.on_close(ctx, termination)
        finally:
            self._pipeline.services.metrics.exchanges.in_flight.dec()

    # The request.

    async def _on_head(self, event: RequestHeaders, began_s: float) -> None:
        headers = event.headers
        head = RequestHead(headers.get(":method", ""), headers.get(":path", ""), headers, event.claims)
        ctx = self._ctx = RequestContext(head, began_s, self._clock.wall())
        ctx.trace = self._trace
        ctx.reachable = event.pools
        ctx.route = route = resolve(head)
        if route.rejection is not None:
            await self._refuse(route.rejection)
            return
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._runtime.limit_bytes:
            await self._refuse(request_too_large(self._runtime.limit_bytes))
            return
        verdict = await self._pipeline.on_head(ctx)
        ctx.progress.overhead_s += self._clock.monotonic() - began_s
        if verdict is not policy.CONTINUE:
            await self._answer(verdict)
        elif event.last:
            await self._on_request(began_s)

    async def _on_request_data(self, last: bool, began_s: float) -> None:
        if self._exchange.request_too_large:
            await self._refuse(request_too_large(self._runtime.limit_bytes))
        elif last:
            await self._on_request(began_s)

    async def _on_request(self, began_s: float) -> None:
        ctx = self._context()
        ctx.body = self._exchange.request_body()
        if ctx.route.takes_feedback:
            await self._take_feedback(ctx)
            return
        try:
            refusal = self._understand(ctx)
        except InvalidRequest as error:
            refusal = error.rejection
        if refusal is not None:
            await self._refuse(refusal)
            return
        verdict = await self._pipeline.on_request(ctx)
        if verdict is not policy.CONTINUE:
            ctx.progress.overhead_s += self._clock.monotonic() - began_s
            await self._answer(verdict)
            return
        effect = self._forward(ctx)
        ctx.progress.overhead_s += self._clock.monotonic() - began_s
        limit_bytes = self._exchange.forward_limit_bytes
        if limit_bytes is not None and len(effect.body or ctx.body) > limit_bytes:
            await self._refuse(request_too_large(limit_bytes))
        else:
            await self._send(effect)

    async def _take_feedback(self, ctx: RequestContext) -> None:
        try:
            said = feedback.parse(ctx.body)
        except InvalidRequest as error:
            await self._refuse(error.rejection)
            return
        ctx.rated = said
        verdict = await self._pipeline.on_feedback(ctx, said)
        if isinstance(verdict, policy.Reject):
            await self._refuse(verdict.rejection)
        else:
            await self._respond(200, (_JSON,), feedback.taken(said), Termination.COMPLETED)

    def _understand(self, ctx: RequestContext) -> Rejection | None:
        """Parse the body and find the model it asks for. Raises InvalidRequest."""
        ctx.request = request = self._api().parse(ctx.head, ctx.body)
        if request.model not in self._catalog.models:
            return model_not_found(request.model)
        model = self._catalog.served(request.model, ctx.reachable)
        if model is None:
            return pool_not_reachable()
        ctx.model = model
        return None

    def _forward(self, ctx: RequestContext) -> Forward:
        pool = ctx.pool
        if pool is None:  # route is shadowed or off: without a stamp Envoy refuses the request
            return Forward()
        call = pool.dialect.encode(ctx.request, ctx.model.upstream(pool, ctx.default_output_tokens))
        set_headers = [(":path", call.path), (STAMP, pool.name), *call.set_headers]
        if ctx.affinity_key is not None:
            set_headers.append((AFFINITY, ctx.affinity_key))
        if ctx.destination is not None and ctx.destination.mirror:
            set_headers.append((MIRROR_STAMP, ctx.destination.mirror))
        return Forward(tuple(set_headers), call.remove_headers, call.body, facts_known_at_forward(ctx))

    # The response.

    async def _on_response_head(self, event: ResponseHeaders) -> None:
        if self._ctx is None:  # a request that Envoy refused before any filter saw it
            unseen = RequestHead("", "", {"x-request-id": str(uuid.uuid4())})
            self._ctx = RequestContext(unseen, self._clock.monotonic(), self._clock.wall())
            self._ctx.trace = self._trace
            self._ctx.route = Route()
        ctx = self._ctx
        ctx.progress.status = status = int(event.headers.get(":status", "0"))
        pool = ctx.pool
        if not self._exchange.forwarded or pool is None:
            await self._pass_through(event.last)
            return
        self._decoder = pool.dialect.decoder(ctx.request, status, event.headers.get("content-type", ""))
        self._encoder = self._api().encoder(ctx.request, self._identity(ctx), ctx.progress.totals)
        self._failed_headers = tuple(name for name in event.headers if name not in _KEPT_OF_FAILURES)
        self._busy_for_s = event.headers.get("retry-after", "")
        if event.last:
            await self._on_response_data(b"", True)

    async def _pass_through(self, last: bool) -> None:
        """Envoy answered itself before anything was forwarded (a slow body, say): it is in our shape already."""
        ctx = self._context()
        ctx.reason = "envoy_reply"
        await self._send(StartResponse((("x-request-id", ctx.request_id),)))
        if last:
            await self._end(b"", Termination.REJECTED)

    async def _on_response_data(self, data: bytes, last: bool) -> None:
        ctx, decoder = self._context(), self._decoder
        if decoder is None:
            await (self._end(data, Termination.REJECTED) if last else self._send(Send(data)))
            return
        events: Sequence[AnswerEvent] = decoder.feed(data) if data else ()
        if last:
            events = [*events, *decoder.finish()]
        if not self._answering and failure_before_answer(events) is not None and await self._falls_back(ctx):
            return
        await self._take_answer(ctx, events, last)

    async def _falls_back(self, ctx: RequestContext) -> bool:
        """Whether another pool has answered instead."""
        if self._runtime.other_pools is None:
            return False
        async with aclosing(self._runtime.other_pools.answer(ctx)) as batches:
            async for events, last in batches:
                if not self._answering:
                    ctx.progress.status = 200
                    self._encoder = self._api().encoder(ctx.request, self._identity(ctx), ctx.progress.totals)
                await self._take_answer(ctx, events, last)
                if self._exchange.finished:
                    break
        return self._answering

    async def _take_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent], last: bool) -> None:
        if self._done:
            if last and self._exchange.responding:
                await self._end(b"", Termination.COMPLETED)
            elif last:
                await self._replace(ctx, self._held)
            return
        if not events:
            return
        self._answering = True
        passed = await self._pipeline.on_answer(ctx, events)
        if isinstance(passed, policy.Reject):
            await self._break_off([Failed(passed.rejection)], passed.rejection, Termination.REJECTED)
            return
        for event in passed:
            if type(event) is Failed:
                await self._break_off(passed, event.rejection, Termination.UPSTREAM_ERROR)
                return
            self._done = self._done or type(event) is Done
        if self._done and not last and not any(type(event) is Done for event in events):
            await self._cut(ctx, passed)
        else:
            await self._release(ctx, passed, last)

    async def _cut(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> None:
        """A policy ended a stream before the upstream did. Envoy resets the upstream, which stops generating."""
        assert self._encoder is not None
        data = self._held + self._encoder.encode(events)
        self._note_bytes(ctx)
        if not self._exchange.streamable:
            await self._replace(ctx, data)
            return
        if not self._exchange.responding:
            await self._send(self._start(ctx))
        await self._end(data, Termination.COMPLETED)

    async def _release(self, ctx: RequestContext, events: Sequence[AnswerEvent], last: bool) -> None:
        """Give the client what may go: a stream as it comes, a whole answer when it is whole."""
        assert self._encoder is not None
        data = self._encoder.encode(events)
        ended = self._done and last
        if data:
            self._note_bytes(ctx)
        if ended and not self._exchange.responding:
            await self._replace(ctx, self._held + data)
        elif ended:
            await self._end(data, Termination.COMPLETED)
        elif data and not self._exchange.streamable:
            self._held += data
        elif data:
            if not self._exchange.responding:
                await self._send(self._start(ctx))
            await self._send(Send(data))

    async def _replace(self, ctx: RequestContext, data: bytes) -> None:
        """All at once. What another pool says is an answer of ours to Envoy, for which the request has failed."""
        metadata, headers = facts_known_at_end(ctx, Termination.COMPLETED), self._response_headers(ctx)
        whole: Effect = WholeResponse(headers, _NOT_OURS, data, metadata)
        if ctx.served is not None:
            whole = Respond(ctx.progress.status, headers, data, metadata)
        await self._finish(whole, Termination.COMPLETED)

    def _start(self, ctx: RequestContext) -> StartResponse:
        headers = self._response_headers(ctx)
        if ctx.served is None:
            return StartResponse(headers, _NOT_OURS)
        named = {name for name, _ in headers}
        removed = tuple(name for name in self._failed_headers if name not in named)
        return StartResponse(((":status", str(ctx.progress.status)), *headers), (*_NOT_OURS, *removed))

    def _note_bytes(self, ctx: RequestContext) -> None:
        progress, now_s = ctx.progress, self._clock.monotonic()
        progress.last_bytes_s = now_s
        if progress.first_bytes_s is None:
            progress.first_bytes_s = now_s

    def _response_headers(self, ctx: RequestContext) -> tuple[tuple[str, str], ...]:
        assert self._encoder is not None
        headers = self._own_headers(ctx)
        if self._encoder.content_type is not None:
            headers.append(("content-type", self._encoder.content_type))
        elif ctx.served is not None:
            headers += ctx.served.body_headers
        return tuple(headers)

    # The end.

    async def _answer(self, verdict: Verdict) -> None:
        if isinstance(verdict, policy.Reject):
            await self._refuse(verdict.rejection)
        elif isinstance(verdict, policy.Respond):
            await self._respond(verdict.status, verdict.headers, verdict.body, Termination.COMPLETED)
        elif isinstance(verdict, policy.Answer):
            await self._replay(verdict)

    async def _replay(self, answer: policy.Answer) -> None:
        """A known answer, as the client would have got it from a model: with an id of its own, made now."""
        ctx = self._context()
        encoder = self._api().encoder(ctx.request, self._identity(ctx), answer.totals)
        ctx.progress.totals = answer.totals if ctx.charged_as_used else TokenTotals()
        body = encoder.encode(answer.events)
        self._note_bytes(ctx)
        headers = [("age", str(int(answer.age_s))), *answer.headers]
        if encoder.content_type is not None:
            headers.append(("content-type", encoder.content_type))
        await self._respond(200, headers, body, Termination.COMPLETED)

    def _identity(self, ctx: RequestContext) -> AnswerIdentity:
        return AnswerIdentity(ctx.request_id, int(ctx.arrived_wall_s), ctx.serving_model.name)

    async def _break_off(self, events: Sequence[AnswerEvent], rejection: Rejection, termination: Termination) -> None:
        """The answer can't go on: an error status while that is possible, an error at the stream's end otherwise."""
        if not self._exchange.responding:
            if termination is Termination.UPSTREAM_ERROR and self._busy_for_s.isdecimal():
                retry_after_s = min(max(int(self._busy_for_s[:9]), 1), _MAX_RETRY_AFTER_S)
                rejection = replace(rejection, retry_after_s=retry_after_s)
            await self._refuse(rejection, termination)
            return
        assert self._encoder is not None
        self._context().reason = rejection.reason
        await self._end(self._encoder.encode(events), termination)

    async def _refuse(self, rejection: Rejection, termination: Termination = Termination.REJECTED) -> None:
        ctx = self._context()
        ctx.reason = rejection.reason
        headers = [_JSON, *rejection.headers]
        if rejection.status in _RETRIABLE:
            headers.append(("retry-after", str(rejection.retry_after_s or _RETRY_AFTER_S)))
        await self._respond(rejection.status, headers, error_body(ctx.route.api or ctx.head, rejection), termination)

    async def _respond(
        self, status: int, headers: Sequence[tuple[str, str]], body: bytes, termination: Termination
    ) -> None:
        ctx = self._context()
        ctx.progress.status = status
        await self._pipeline.on_reply(ctx)
        metadata = facts_known_at_forward(ctx) | facts_known_at_end(ctx, termination)
        respond = Respond(status, (*headers, *self._own_headers(ctx)), body, metadata, ctx.reason)
        await self._finish(respond, termination)

    async def _end(self, data: bytes, termination: Termination) -> None:
        ctx = self._context()
        await self._finish(End(data, facts_known_at_end(ctx, termination)), termination)

    async def _finish(self, effect: Effect, termination: Termination) -> None:
        # Known before it is said: Envoy may give the stream up, and cancel us, as soon as it has the last reply.
        self._ending = termination
        await self._send(effect)
        self._close(termination)

    def _own_headers(self, ctx: RequestContext) -> list[tuple[str, str]]:
        headers = [("x-extproc-overhead-ms", f"{ctx.progress.overhead_s * 1e3:.2f}"), *ctx.response_headers]
        if ctx.model_name:
            headers.append(("x-extproc-model", ctx.serving_model.name))
        if ctx.serving_pool is not None:
            headers.append(("x-extproc-pool", ctx.serving_pool.name))
        if ctx.arm:
            headers.append(("x-extproc-arm", ctx.arm))
        if ctx.caching is not None and ctx.caching.visible:
            headers.append(("x-extproc-cache", ctx.caching.result))
        if ctx.degraded:
            headers.append(("x-extproc-degraded", ",".join(sorted(ctx.degraded))))
        return headers

    async def _send(self, effect: Effect) -> None:
        for reply in self._exchange.send(effect):
            await self._write(reply)

    def _context(self) -> RequestContext:
        assert self._ctx is not None, "the exchange machine lets nothing come before a message's headers"
        return self._ctx

    def _api(self) -> ClientApi:
        api = self._context().route.api
        assert api is not None, "a route without an API was refused or answered on its headers"
        return api
