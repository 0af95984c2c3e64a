"""A collector in a process of its own: takes OTLP over gRPC with OpenTelemetry's own messages, and writes each span as
a line of JSON; /dev/null takes them unread. Run: `python -m tests.helpers.collector PORT FILE`.
"""

import json
import os
import pathlib
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from extproc.stack.guardian import Guardian
from extproc.stack.process import Process

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class Collector:
    """Started by `start`; close it."""

    def __init__(self, directory: pathlib.Path, port: int) -> None:
        self.port, self.file = port, directory / "spans.jsonl"
        self._guardian = Guardian()
        command = (sys.executable, "-m", "tests.helpers.collector", str(port), str(self.file))
        env = {"PYTHONPATH": str(_REPOSITORY), "PATH": "/usr/bin:/bin"}
        self._process = Process("collector", command, env, directory / "collector.log", self._guardian)

    def start(self) -> None:
        self._process.start()
        self._process.wait_ready(self._listens, 20.0, threading.Event())

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.stop(5.0)

    def spans(self, trace_id: str = "") -> list[Mapping[str, Any]]:
        """Those it has taken, of one trace or of all."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().split("\n")[:-1]
        return [span for line in lines if (span := json.loads(line))["trace_id"] == trace_id or not trace_id]

    def close(self) -> None:
        self.stop()
        self._guardian.close()


def _plain(service: str, span: Span) -> dict[str, Any]:
    return {
        "service": service,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind),
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "began_s": span.start_time_unix_nano / 1e9,
        "ended_s": span.end_time_unix_nano / 1e9,
        "failed": span.status.code == 2,
        "attributes": {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
    }


def main() -> None:
    port, path = sys.argv[1:]
    with pathlib.Path(path).open("a") as file:

        def export(content: bytes, _: grpc.ServicerContext) -> bytes:
            if path == os.devnull:
                return b""
            request = messages.ExportTraceServiceRequest.FromString(content)
            for of_resource in request.resource_spans:
                resource = {one.key: one.value.string_value for one in of_resource.resource.attributes}
                spans = [span for of_scope in of_resource.scope_spans for span in of_scope.spans]
                file.writelines(json.dumps(_plain(resource["service.name"], span)) + "\n" for span in spans)
            file.flush()
            return messages.ExportTraceServiceResponse().SerializeToString()

        server = grpc.server(ThreadPoolExecutor(1))
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(export)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": method}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        server.wait_for_termination()


if __name__ == "__main__":
    main()
