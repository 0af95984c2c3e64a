"""What the client of one exchange gets: the head of an answer, its bytes, a refusal or an answer that was known before;
and with the last of them the exchange's end.

The head of a response is held back until its first event, so that an error which a model server reports after its 200
still becomes a proper error for the client; an answer that isn't streamed, until it is whole. Must not know where
events come from, gRPC or protobuf.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from extproc.dialects.answer import AnswerEvent
from extproc.dialects.interface import AnswerEncoder, AnswerIdentity, TokenTotals
from extproc.dialects.registry import error_body
from extproc.exchange.machine import Exchange
from extproc.exchange.messages import Effect, End, Reply, Respond, Send, StartResponse, WholeResponse
from extproc.policies import interface as policy
from extproc.policies.account import facts_known_at_forward, metadata_known_at_end
from extproc.policies.context import RequestContext
from extproc.policies.interface import Termination, Verdict
from extproc.policies.pipeline import Pipeline
from extproc.rejection import Rejection

JSON = ("content-type", "application/json")
# Length, encoding and tag of the upstream's body are not those of ours.
_NOT_OURS = ("content-length", "content-encoding", "etag")
# Of a failed answer's head, what stays although another pool answers: the rest spoke of the failure.
_KEPT_OF_FAILURES = frozenset({":status", "x-request-id", "date", "server"})
_RETRIABLE = (429, 503)
_RETRY_AFTER_S = 1
_MAX_RETRY_AFTER_S = 120


class Responder:
    """Of one exchange. `write` sends one reply to Envoy; `ended` is told once the last one is sent."""

    def __init__(
        self, exchange: Exchange, pipeline: Pipeline, write: Callable[[Reply], Awaitable[None]],
        ended: Callable[[Termination], None],
    ) -> None:  # fmt: skip
        self._exchange = exchange
        self._pipeline = pipeline
        self._clock = pipeline.services.clock
        self._write = write
        self._ended = ended
        self._encoder: AnswerEncoder | None = None
        self._upstream_headers: Mapping[str, str] = {}
        self._held = b""
        self.ending = Termination.CANCELLED
        """How the exchange ends if Envoy gives it up now."""

    # An answer from a pool.

    def expect(self, ctx: RequestContext, upstream_headers: Mapping[str, str]) -> None:
        """A pool begins to answer, with these headers."""
        self._upstream_headers = upstream_headers
        self.expect_of_another(ctx)

    def expect_of_another(self, ctx: RequestContext) -> None:
        """It failed, and another pool begins to answer instead."""
        self._encoder = ctx.api.encoder(ctx.request, _identity(ctx), ctx.progress.totals)

    async def take(self, ctx: RequestContext, events: Sequence[AnswerEvent], ended: bool) -> None:
        """Give the client what may go: a stream as it comes, a whole answer when it is whole."""
        data = self._encoded(events)
        if data:
            self._note_bytes(ctx)
        if ended and not self._exchange.responding:
            await self._replace(ctx, self._held + data)
        elif ended:
            await self.end(ctx, data, Termination.COMPLETED)
        elif data and not self._exchange.streamable:
            self._held += data
        elif data:
            if not self._exchange.responding:
                await self.send(self._start(ctx))
            await self.send(Send(data))

    async def cut(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> None:
        """A policy ended a stream before the upstream did. Envoy resets the upstream, which stops generating."""
        data = self._held + self._encoded(events)
        self._note_bytes(ctx)
        if not self._exchange.streamable:
            await self._replace(ctx, data)
            return
        if not self._exchange.responding:
            await self.send(self._start(ctx))
        await self.end(ctx, data, Termination.COMPLETED)

    async def close(self, ctx: RequestContext) -> None:
        """The answer was over before the upstream's last byte, which is here now."""
        if self._exchange.responding:
            await self.end(ctx, b"", Termination.COMPLETED)
        else:
            await self._replace(ctx, self._held)

    async def break_off(
        self, ctx: RequestContext, events: Sequence[AnswerEvent], rejection: Rejection, termination: Termination
    ) -> None:
        """The answer can't go on: an error status while that is possible, an error at the stream's end otherwise."""
        if not self._exchange.responding:
            busy_for_s = self._upstream_headers.get("retry-after", "")
            if termination is Termination.UPSTREAM_ERROR and busy_for_s.isdecimal():
                retry_after_s = min(max(int(busy_for_s[:9]), 1), _MAX_RETRY_AFTER_S)
                rejection = replace(rejection, retry_after_s=retry_after_s)
            await self.refuse(ctx, rejection, termination)
            return
        ctx.reason = rejection.reason
        await self.end(ctx, self._encoded(events), termination)

    async def _replace(self, ctx: RequestContext, data: bytes) -> None:
        """All at once. What another pool says is an answer of ours to Envoy, for which the request has failed."""
        metadata, headers = metadata_known_at_end(ctx, Termination.COMPLETED), self._response_headers(ctx)
        whole: Effect = WholeResponse(headers, _NOT_OURS, data, metadata)
        if ctx.served is not None:
            whole = Respond(ctx.progress.status, headers, data, metadata)
        await self._finish(whole, Termination.COMPLETED)

    def _start(self, ctx: RequestContext) -> StartResponse:
        headers = self._response_headers(ctx)
        if ctx.served is None:
            return StartResponse(headers, _NOT_OURS)
        stays = _KEPT_OF_FAILURES | {name for name, _ in headers}
        removed = tuple(name for name in self._upstream_headers if name not in stays)
        return StartResponse(((":status", str(ctx.progress.status)), *headers), (*_NOT_OURS, *removed))

    def _encoded(self, events: Sequence[AnswerEvent]) -> bytes:
        assert self._encoder is not None, "no pool answers yet"
        return self._encoder.encode(events)

    def _note_bytes(self, ctx: RequestContext) -> None:
        progress, now_s = ctx.progress, self._clock.monotonic()
        progress.last_bytes_s = now_s
        if progress.first_bytes_s is None:
            progress.first_bytes_s = now_s

    def _response_headers(self, ctx: RequestContext) -> tuple[tuple[str, str], ...]:
        assert self._encoder is not None, "no pool answers yet"
        headers = _own_headers(ctx)
        if self._encoder.content_type is not None:
            headers.append(("content-type", self._encoder.content_type))
        elif ctx.served is not None:
            headers += ctx.served.body_headers
        return tuple(headers)

    # An answer of our own.

    async def answer(self, ctx: RequestContext, verdict: Verdict) -> None:
        """What a policy says instead of a model."""
        if isinstance(verdict, policy.Reject):
            await self.refuse(ctx, verdict.rejection)
        elif isinstance(verdict, policy.Respond):
            await self.respond(ctx, verdict.status, verdict.headers, verdict.body, Termination.COMPLETED)
        elif isinstance(verdict, policy.Answer):
            await self._replay(ctx, verdict)

    async def _replay(self, ctx: RequestContext, answer: policy.Answer) -> None:
        """A known answer, as the client would have got it from a model: with an id of its own, made now."""
        encoder = ctx.api.encoder(ctx.request, _identity(ctx), answer.totals)
        ctx.progress.totals = answer.totals if ctx.charged_as_used else TokenTotals()
        body = encoder.encode(answer.events)
        self._note_bytes(ctx)
        headers = [("age", str(int(answer.age_s))), *answer.headers]
        if encoder.content_type is not None:
            headers.append(("content-type", encoder.content_type))
        await self.respond(ctx, 200, headers, body, Termination.COMPLETED)

    async def refuse(
        self, ctx: RequestContext, rejection: Rejection, termination: Termination = Termination.REJECTED
    ) -> None:
        ctx.reason = rejection.reason
        headers = [JSON, *rejection.headers]
        if rejection.status in _RETRIABLE:
            headers.append(("retry-after", str(rejection.retry_after_s or _RETRY_AFTER_S)))
        body = error_body(ctx.route.api or ctx.head, rejection)
        await self.respond(ctx, rejection.status, headers, body, termination)

    async def respond(
        self, ctx: RequestContext, status: int, headers: Sequence[tuple[str, str]], body: bytes,
        termination: Termination,
    ) -> None:  # fmt: skip
        ctx.progress.status = status
        await self._pipeline.on_reply(ctx)
        metadata = facts_known_at_forward(ctx) | metadata_known_at_end(ctx, termination)
        await self._finish(Respond(status, (*headers, *_own_headers(ctx)), body, metadata, ctx.reason), termination)

    # The end.

    async def end(self, ctx: RequestContext, data: bytes, termination: Termination) -> None:
        """The last bytes of what is on its way."""
        await self._finish(End(data, metadata_known_at_end(ctx, termination)), termination)

    async def _finish(self, effect: Effect, termination: Termination) -> None:
        # Known before it is said: Envoy may give the stream up, and cancel us, as soon as it has the last reply.
        self.ending = termination
        await self.send(effect)
        self._ended(termination)

    async def send(self, effect: Effect) -> None:
        for reply in self._exchange.send(effect):
            await self._write(reply)


def _identity(ctx: RequestContext) -> AnswerIdentity:
    return AnswerIdentity(ctx.request_id, int(ctx.arrived_wall_s), ctx.serving_model.name)


def _own_headers(ctx: RequestContext) -> list[tuple[str, str]]:
    headers = [("x-extproc-overhead-ms", f"{ctx.progress.overhead_s * 1e3:.2f}"), *ctx.response_headers]
    if ctx.model_name:
        headers.append(("x-extproc-model", ctx.serving_model.name))
    if ctx.serving_pool is not None:
        headers.append(("x-extproc-pool", ctx.serving_pool.name))
    if ctx.arm:
        headers.append(("x-extproc-arm", ctx.arm))
    if ctx.cascading is not None and ctx.cascading.outcome is not None:
        headers.append(("x-extproc-cascade", ctx.cascading.outcome))
    if ctx.caching is not None and ctx.caching.visible:
        headers.append(("x-extproc-cache", ctx.caching.result))
    if ctx.degraded:
        headers.append(("x-extproc-degraded", ",".join(sorted(ctx.degraded))))
    return headers
