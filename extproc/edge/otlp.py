"""Spans to an OpenTelemetry collector: OTLP over gRPC, beside the requests and never in their way.

An exchange's spans are encoded when it is over, wait in a bounded queue, and go in batches. What finds no room, or
what the collector refuses, is dropped and counted. Must not know: what a span means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

import grpc
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from extproc import __version__
from extproc.config.address import TcpAddress
from extproc.telemetry.spans import Span, Trace, Value, begun

SERVICE_NAME = "extproc"
MOST_WAITING = 2048
"""Exchanges whose spans may wait; at two kilobytes each."""

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_BATCH = 256
_INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
_LONGEST_PAUSE_S = 30.0
_SAMPLED = 0x01
_NANO = 1_000_000_000
_TEMPORARY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_Export = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of a span."""

    EXPORTED = "exported"
    DROPPED = "dropped"
    REFUSED = "refused"


class SpanExporter:
    """A `Tracer`. `count` hears how many spans had which outcome. Belongs to the running event loop."""

    def __init__(self, collector: TcpAddress, count: Callable[[Outcome, int], None]) -> None:
        self._channel = grpc.aio.insecure_channel(str(collector))
        self._send: _Export = self._channel.unary_unary(_METHOD)
        self._count = count
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._lost = False
        self._stopping = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_sending())

    def begin(self, traceparent: Callable[[], str]) -> Trace | None:
        return begun(traceparent())

    def ended(self, spans: Sequence[Span]) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._count(Outcome.DROPPED, len(spans))
            return
        self._waiting.append((len(spans), encode(spans)))

    async def close(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Send what waits, for at most so long; the rest is dropped."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._task
        self._count(Outcome.DROPPED, sum(count for count, _ in self._waiting))
        self._waiting.clear()
        await self._channel.close()

    async def _keep_sending(self) -> None:
        pause_s = _INTERVAL_S
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            reached = await self._send_waiting()
            pause_s = _INTERVAL_S if reached else min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _send_waiting(self) -> bool:
        """False: the collector can't be reached, and what waits goes on waiting."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            count = sum(spans for spans, _ in batch)
            try:
                # Messages that follow one another are one message with the repeated fields of all.
                answer = await self._send(b"".join(part for _, part in batch), timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                code = error.code()
                self._note(code)
                if code in _TEMPORARY:
                    self._put_back(batch)
                    return False
                self._count(Outcome.REFUSED, count)
                continue
            refused = ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
            self._count(Outcome.REFUSED, refused)
            self._count(Outcome.EXPORTED, count - refused)
            self._note(None)
        return True

    def _put_back(self, batch: list[tuple[int, bytes]]) -> None:
        room = MOST_WAITING - len(self._waiting)
        self._waiting.extendleft(reversed(batch[:room]))
        self._count(Outcome.DROPPED, sum(spans for spans, _ in batch[room:]))

    def _note(self, trouble: grpc.StatusCode | None) -> None:
        """One log line when the collector is lost and one when it is back."""
        lost = trouble is not None
        if lost != self._lost:
            self._lost = lost
            _log.warning("spans are not taken" if lost else "spans are taken again", extra={"code": str(trouble)})


def encode(spans: Iterable[Span]) -> bytes:
    """One ExportTraceServiceRequest with these spans."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    resource: dict[str, Value] = {
        "service.name": SERVICE_NAME,
        "service.version": __version__,
        "process.pid": os.getpid(),
    }
    for name, value in resource.items():
        _attribute(of_resource.resource.attributes, name, value)
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = "extproc"
    for span in spans:
        _fill(of_scope.spans.add(), span)
    return request.SerializeToString()


def _fill(message: SpanMessage, span: Span) -> None:
    message.name = span.name
    message.trace_id, message.span_id, message.parent_span_id = span.trace_id, span.span_id, span.parent_id
    message.flags = _SAMPLED
    message.kind = SpanMessage.SPAN_KIND_SERVER if span.serves else SpanMessage.SPAN_KIND_INTERNAL
    message.start_time_unix_nano = int(span.began_s * _NANO)
    message.end_time_unix_nano = max(message.start_time_unix_nano, int(span.ended_s * _NANO))
    for name, value in span.attributes.items():
        _attribute(message.attributes, name, value)
    if span.failure:
        message.status.code = Status.STATUS_CODE_ERROR
        message.status.message = span.failure


def _attribute(attributes: RepeatedCompositeFieldContainer[KeyValue], name: str, value: Value) -> None:
    one = attributes.add(key=name).value
    if isinstance(value, bool):
        one.bool_value = value
    elif isinstance(value, int):
        one.int_value = value
    elif isinstance(value, float):
        one.double_value = value
    else:
        one.string_value = value
