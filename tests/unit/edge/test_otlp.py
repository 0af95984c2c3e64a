"""Sending spans: never more wait than may, and every span is counted once, whatever becomes of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from extproc.config.address import TcpAddress
from extproc.edge import otlp
from extproc.edge.otlp import MOST_WAITING, Outcome, SpanExporter
from extproc.telemetry.spans import Span

SPAN = Span("chat m", b"t" * 16, b"s" * 8, b"p" * 8, 1.0, 2.0, {"a": 1, "b": "x", "c": True, "d": 0.5}, serves=True)


class Collector:
    """Takes spans, unless it is told to answer with an error."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.refuses: grpc.StatusCode | None = None
        self.rejects = 0
        self.server = grpc.aio.server()
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def _export(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self.refuses is not None:
            await context.abort(self.refuses, "no")
        self.taken.append(request)
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return answer.SerializeToString()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_INTERVAL_S", 0.02)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    await collector.server.start()
    yield collector
    await collector.server.stop(None)


async def until(counted: Counter[Outcome], spans: int) -> None:
    async with asyncio.timeout(10):
        while counted.total() < spans:  # noqa: ASYNC110 (a counter tells nobody)
            await asyncio.sleep(0.01)


async def test_spans_arrive_as_they_were(collector: Collector) -> None:
    counted = Counter[Outcome]()
    exporter = SpanExporter(TcpAddress("127.0.0.1", collector.port), lambda outcome, n: counted.update({outcome: n}))
    exporter.ended([SPAN, SPAN])
    exporter.ended([SPAN])
    await until(counted, 3)
    await exporter.close()
    request = ExportTraceServiceRequest.FromString(b"".join(collector.taken))
    spans = [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
    assert [(span.name, span.trace_id, span.parent_span_id) for span in spans] == [("chat m", b"t" * 16, b"p" * 8)] * 3
    values = {one.key: one.value for one in spans[0].attributes}
    assert (values["a"].int_value, values["b"].string_value) == (1, "x")
    assert (values["c"].bool_value, values["d"].double_value) == (True, 0.5)
    assert (spans[0].start_time_unix_nano, spans[0].end_time_unix_nano) == (10**9, 2 * 10**9)
    assert +counted == {Outcome.EXPORTED: 3}


async def test_what_finds_no_room_is_dropped_and_counted() -> None:
    counted = Counter[Outcome]()
    exporter = SpanExporter(TcpAddress("127.0.0.1", 9), lambda outcome, n: counted.update({outcome: n}))
    for _ in range(MOST_WAITING + 5):
        exporter.ended([SPAN, SPAN])
    assert +counted == {Outcome.DROPPED: 10}
    await exporter.close(timeout_s=0.2)
    assert +counted == {Outcome.DROPPED: 2 * (MOST_WAITING + 5)}


async def test_what_the_collector_refuses_is_counted_and_not_sent_again(collector: Collector) -> None:
    counted = Counter[Outcome]()
    exporter = SpanExporter(TcpAddress("127.0.0.1", collector.port), lambda outcome, n: counted.update({outcome: n}))
    collector.refuses = grpc.StatusCode.INVALID_ARGUMENT
    exporter.ended([SPAN])
    await until(counted, 1)
    collector.refuses, collector.rejects = None, 1
    exporter.ended([SPAN, SPAN])
    await until(counted, 3)
    await exporter.close()
    assert +counted == {Outcome.REFUSED: 2, Outcome.EXPORTED: 1}


async def test_what_a_lost_collector_did_not_take_is_sent_when_it_is_back(collector: Collector) -> None:
    counted = Counter[Outcome]()
    exporter = SpanExporter(TcpAddress("127.0.0.1", collector.port), lambda outcome, n: counted.update({outcome: n}))
    collector.refuses = grpc.StatusCode.UNAVAILABLE
    exporter.ended([SPAN])
    await asyncio.sleep(0.2)
    assert +counted == {}
    collector.refuses = None
    await until(counted, 1)
    await exporter.close()
    assert +counted == {Outcome.EXPORTED: 1}
