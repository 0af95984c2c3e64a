"""What a trace tells of one exchange: a span of its own, and one for each policy that took time.

Pure. Envoy decides what is sampled, and says so in the `traceparent` of its gRPC call: the exchange's span is a child
of Envoy's span of that call. Attributes follow OpenTelemetry's GenAI conventions; no text of a request or an answer,
and no key, is among them. Must not know: where spans go.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from extproc.policies.context import RequestContext
    from extproc.policies.interface import Termination

TOOK_TIME_S = 0.0001
"""A policy that was done sooner gets no span."""

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 0x01
_OPERATIONS = {"completions": "text_completion"}  # the conventions' word for it; the others are the same
_FAILED = frozenset({"upstream_error", "internal_error"})
Value = str | int | float | bool


class Span(Struct, frozen=True):
    """`began_s` and `ended_s` are wall-clock seconds. `serves`: it answers a call, rather than being a part of it.
    `failure` is empty where all went well."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    began_s: float
    ended_s: float
    attributes: dict[str, Value] = {}
    serves: bool = False
    failure: str = ""


class _Step(Struct):
    """One policy's work; `busy_s` is less than from begin to end where it worked on the answer's pieces."""

    policy: str
    began_s: float
    ended_s: float
    busy_s: float
    verdict: str = ""


class Trace(Struct):
    """One sampled exchange in the making. Times are monotonic seconds."""

    trace_id: bytes
    parent_id: bytes
    steps: list[_Step] = []
    answering: dict[str, _Step] = {}

    def decided(self, policy: str, began_s: float, ended_s: float, verdict: str) -> None:
        """A policy looked at the request; `verdict` is empty where it let it go on."""
        if verdict or ended_s - began_s >= TOOK_TIME_S:
            self.steps.append(_Step(policy, began_s, ended_s, ended_s - began_s, verdict))

    def passed(self, policy: str, began_s: float, ended_s: float) -> None:
        """A policy looked at a piece of the answer: all of them together become one span."""
        step = self.answering.get(policy)
        if step is None:
            self.answering[policy] = _Step(policy, began_s, ended_s, ended_s - began_s)
        else:
            step.ended_s = ended_s
            step.busy_s += ended_s - began_s

    def spans(self, ctx: RequestContext, termination: Termination, ended_s: float) -> Iterator[Span]:
        """The exchange's span and those within it."""
        own_id, wall_s = _new_id(), ctx.arrived_wall_s - ctx.arrived_s
        failure = ctx.reason or termination if termination in _FAILED else ""
        attributes = dict(_attributes(ctx, termination))
        yield Span(
            _name(ctx), self.trace_id, own_id, self.parent_id, ctx.arrived_wall_s, wall_s + ended_s, attributes,
            serves=True, failure=failure,
        )  # fmt: skip
        answering = (step for step in self.answering.values() if step.busy_s >= TOOK_TIME_S)
        for step in (*self.steps, *answering):
            about: dict[str, Value] = {"extproc.busy_ms": round(step.busy_s * 1e3, 3)}
            if step.verdict:
                about["extproc.verdict"] = step.verdict
            began_s, step_ended_s = wall_s + step.began_s, wall_s + step.ended_s
            yield Span(f"policy {step.policy}", self.trace_id, _new_id(), own_id, began_s, step_ended_s, about)


class Tracer(Protocol):
    """Where the spans of sampled exchanges go."""

    def begin(self, traceparent: Callable[[], str]) -> Trace | None:
        """A trace for an exchange that Envoy samples. `traceparent` is asked only if that matters."""

    def ended(self, spans: Sequence[Span]) -> None:
        """A sampled exchange is over."""


class NoTracer:
    """A `Tracer` where there are no traces."""

    def begin(self, traceparent: Callable[[], str]) -> Trace | None:
        return None

    def ended(self, spans: Sequence[Span]) -> None:
        """There are none."""


def begun(traceparent: str) -> Trace | None:
    """A trace below this parent (W3C Trace Context); None where it is not sampled or says nothing."""
    found = _PARENT.fullmatch(traceparent)
    if found is None or not int(found[3], 16) & _SAMPLED:
        return None
    return Trace(bytes.fromhex(found[1]), bytes.fromhex(found[2]))


def _new_id() -> bytes:
    return secrets.token_bytes(8)


def _name(ctx: RequestContext) -> str:
    operation = _OPERATIONS.get(ctx.operation, ctx.operation)
    return f"{operation} {ctx.model_name}" if ctx.model_name else operation


def _attributes(ctx: RequestContext, termination: Termination) -> Iterator[tuple[str, Value]]:
    progress = ctx.progress
    yield "gen_ai.operation.name", _OPERATIONS.get(ctx.operation, ctx.operation)
    yield "gen_ai.provider.name", "triton"
    yield "http.response.status_code", progress.status
    yield "extproc.request_id", ctx.request_id
    yield "extproc.termination", str(termination)
    yield "extproc.overhead_ms", round(progress.overhead_s * 1e3, 3)
    yield "extproc.team", ctx.principal.team
    yield "extproc.tier", ctx.principal.tier
    if ctx.reason:
        yield "error.type", ctx.reason
    if ctx.caching is not None:
        yield "extproc.cache", str(ctx.caching.result)
    if ctx.pool is not None:
        yield "extproc.pool", ctx.pool.name
    if ctx.destination is not None and ctx.destination.taken is not None:
        yield "extproc.experiment", ctx.destination.taken.experiment
        yield "extproc.arm", ctx.destination.taken.arm
    if ctx.model_name:
        yield from _about_tokens(ctx)


def _about_tokens(ctx: RequestContext) -> Iterator[tuple[str, Value]]:
    progress, limit_tokens = ctx.progress, ctx.request.output_limit_tokens
    yield "gen_ai.request.model", ctx.model_name
    yield "gen_ai.request.stream", ctx.stream
    yield "gen_ai.usage.input_tokens", progress.totals.prompt_tokens
    yield "gen_ai.usage.output_tokens", progress.totals.completion_tokens
    yield "gen_ai.usage.cache_read.input_tokens", progress.totals.cached_tokens
    if limit_tokens is not None:
        yield "gen_ai.request.max_tokens", limit_tokens
    if progress.first_bytes_s is not None:
        yield "gen_ai.response.time_to_first_chunk", round(progress.first_bytes_s - ctx.arrived_s, 6)
