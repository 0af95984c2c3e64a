"""One exchange from its first event to its end: the exchange machine, the dialects and the policies at work together.

Owns the async driving and nothing else: what is legal now is `exchange`'s, what bytes mean is `dialects`', what is
decided is `policies`'. Must not know gRPC or protobuf.

    headers      resolve the path; head policies (identify)
    body ended   parse; request policies; encode for the pool; forward with our stamp
    response     decode the pool's answer to events; answer policies; hand them to the responder
    end          finalizers, once, in a task of their own so that they survive the client's leaving
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from extproc import cascade
from extproc.cascade import Finding, Kept, Trial
from extproc.dialects import feedback
from extproc.dialects.answer import AnswerEvent, Done, Failed
from extproc.dialects.interface import (
    AnswerDecoder,
    InvalidRequest,
    RequestHead,
    Route,
)
from extproc.dialects.registry import resolve
from extproc.exchange.machine import Exchange
from extproc.exchange.messages import (
    Event,
    Forward,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    Send,
    StartResponse,
)
from extproc.fallback import ENDPOINT, STAMP, OtherPools, failure_before_answer
from extproc.policies import interface as policy
from extproc.policies.account import facts_known_at_forward
from extproc.policies.context import RequestContext
from extproc.policies.interface import Termination
from extproc.policies.pipeline import Pipeline
from extproc.rejection import Rejection, internal_error, model_not_found, pool_not_reachable, request_too_large
from extproc.responder import JSON, Responder

AFFINITY = "x-extproc-affinity"
"""The request header by which Envoy chooses among a pool's endpoints, where the pool is balanced so. As the stamp."""

MIRROR_STAMP = "x-extproc-mirror"
"""The experiment whose mirror gets a copy of the request, for the routes that mirror. As little for clients to set."""

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
        self._exchange = Exchange(runtime.limit_bytes)
        self._responder = Responder(self._exchange, runtime.pipeline, write, self._close)
        self._ctx: RequestContext | None = None
        self._decoder: AnswerDecoder | None = None
        self._trial: Trial | None = None
        self._answering = False
        self._done = False
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
            await self._responder.refuse(self._ctx, internal_error(), Termination.INTERNAL_ERROR)
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
        self._close(self._responder.ending)

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
            await self._responder.refuse(ctx, route.rejection)
            return
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._runtime.limit_bytes:
            await self._responder.refuse(ctx, request_too_large(self._runtime.limit_bytes))
            return
        verdict = await self._pipeline.on_head(ctx)
        ctx.progress.overhead_s += self._clock.monotonic() - began_s
        if verdict is not policy.CONTINUE:
            await self._responder.answer(ctx, verdict)
        elif event.last:
            await self._on_request(began_s)

    async def _on_request_data(self, last: bool, began_s: float) -> None:
        if self._exchange.request_too_large:
            await self._responder.refuse(self._context(), request_too_large(self._runtime.limit_bytes))
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
            await self._responder.refuse(ctx, refusal)
            return
        verdict = await self._pipeline.on_request(ctx)
        if verdict is not policy.CONTINUE:
            ctx.progress.overhead_s += self._clock.monotonic() - began_s
            await self._responder.answer(ctx, verdict)
            return
        effect = self._forward(ctx)
        ctx.progress.overhead_s += self._clock.monotonic() - began_s
        limit_bytes = self._exchange.forward_limit_bytes
        if limit_bytes is not None and len(effect.body or ctx.body) > limit_bytes:
            await self._responder.refuse(ctx, request_too_large(limit_bytes))
        else:
            await self._responder.send(effect)

    async def _take_feedback(self, ctx: RequestContext) -> None:
        try:
            said = feedback.parse(ctx.body)
        except InvalidRequest as error:
            await self._responder.refuse(ctx, error.rejection)
            return
        ctx.rated = said
        verdict = await self._pipeline.on_feedback(ctx, said)
        if isinstance(verdict, policy.Reject):
            await self._responder.refuse(ctx, verdict.rejection)
        else:
            await self._responder.respond(ctx, 200, (JSON,), feedback.taken(said), Termination.COMPLETED)

    def _understand(self, ctx: RequestContext) -> Rejection | None:
        """Parse the body and find the model it asks for. Raises InvalidRequest."""
        ctx.request = request = ctx.api.parse(ctx.head, ctx.body)
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
        call = pool.dialect.encode(ctx.request, cascade.upstream_model(ctx, pool))
        set_headers = [(":path", call.path), (STAMP, pool.name), *call.set_headers]
        if ctx.affinity_key is not None:
            set_headers.append((AFFINITY, ctx.affinity_key))
        if ctx.choice is not None and ctx.choice.named:
            set_headers.append((ENDPOINT, ",".join(ctx.choice.order)))
        if ctx.destination is not None and ctx.destination.is_mirrored and ctx.destination.taken is not None:
            set_headers.append((MIRROR_STAMP, ctx.destination.taken.experiment))
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
        if ctx.choice is not None:
            ctx.choice.answered(status, event.endpoint, self._clock.monotonic())
        pool = ctx.pool
        if not self._exchange.forwarded or pool is None:
            await self._pass_through(event.last)
            return
        self._decoder = pool.dialect.decoder(ctx.request, status, event.headers.get("content-type", ""))
        self._responder.expect(ctx, event.headers)
        self._trial = None if ctx.cascading is None else Trial(ctx.cascading)
        if event.last:
            await self._on_response_data(b"", True)

    async def _pass_through(self, last: bool) -> None:
        """Envoy answered itself before anything was forwarded (a slow body, say): it is in our shape already."""
        ctx = self._context()
        ctx.reason = "envoy_reply"
        await self._responder.send(StartResponse((("x-request-id", ctx.request_id),)))
        if last:
            await self._responder.end(ctx, b"", Termination.REJECTED)

    async def _on_response_data(self, data: bytes, last: bool) -> None:
        ctx, decoder = self._context(), self._decoder
        if decoder is None:
            responder = self._responder
            await (responder.end(ctx, data, Termination.REJECTED) if last else responder.send(Send(data)))
            return
        events: Sequence[AnswerEvent] = decoder.feed(data) if data else ()
        if last:
            events = [*events, *decoder.finish()]
        fails = not self._answering and failure_before_answer(events) is not None
        if events and ctx.choice is not None:
            ctx.choice.begun(fails, self._clock.monotonic())
        if self._trial is not None:
            await self._try(ctx, self._trial, events, last)
            return
        if fails and await self._falls_back(ctx):
            return
        await self._take_answer(ctx, events, last)

    async def _try(self, ctx: RequestContext, trial: Trial, events: Sequence[AnswerEvent], last: bool) -> None:
        """A cascade's small model answers: hold it, show it, or have the model answer that was asked for."""
        finding = trial.take(events)
        if finding is Finding.HOLD:
            return
        if finding is Finding.ESCALATE:
            why, refusal = Kept.LIMIT, await trial.give_up(ctx, self._pipeline)
            if refusal is None:
                if await self._falls_back(ctx):
                    return
                why, refusal = Kept.LARGE_FAILED, cascade.FAILED
            if not trial.can_be_shown():
                ended = Termination.REJECTED if why is Kept.LIMIT else Termination.UPSTREAM_ERROR
                await self._responder.refuse(ctx, refusal, ended)
                return
            trial.keep_after_all(ctx, why)
        await self._take_answer(ctx, trial.shown(ctx), last)

    async def _falls_back(self, ctx: RequestContext) -> bool:
        """Whether another pool has answered instead."""
        if self._runtime.other_pools is None:
            return False
        async with aclosing(self._runtime.other_pools.answer(ctx)) as batches:
            async for events, last in batches:
                if not self._answering:
                    ctx.progress.status = 200
                    self._responder.expect_of_another(ctx)
                await self._take_answer(ctx, events, last)
                if self._exchange.finished:
                    break
        return self._answering

    async def _take_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent], last: bool) -> None:
        if self._done:
            if last:
                await self._responder.close(ctx)
            return
        if not events:
            return
        self._answering = True
        passed = await self._pipeline.on_answer(ctx, events)
        if isinstance(passed, policy.Reject):
            failed = [Failed(passed.rejection)]
            await self._responder.break_off(ctx, failed, passed.rejection, Termination.REJECTED)
            return
        for event in passed:
            if type(event) is Failed:
                await self._responder.break_off(ctx, passed, event.rejection, Termination.UPSTREAM_ERROR)
                return
            self._done = self._done or type(event) is Done
        if self._done and not last and not any(type(event) is Done for event in events):
            await self._responder.cut(ctx, passed)
        else:
            await self._responder.take(ctx, passed, self._done and last)

    def _context(self) -> RequestContext:
        assert self._ctx is not None, "the exchange machine lets nothing come before a message's headers"
        return self._ctx
