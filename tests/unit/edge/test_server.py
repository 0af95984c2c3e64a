"""The ext_proc service and its health on either server, asked with gRPC's own client."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from extproc.config.address import TcpAddress, UnixAddress
from extproc.config.model import GrpcServer
from extproc.edge.server import server_of
from extproc.edge.service import SERVICE, Service, Write
from extproc.errors import ProtocolError
from extproc.exchange.messages import BodyReply, Event, ImmediateReply, RequestTrailers, ResponseBody
from tests.helpers.calls import until
from tests.helpers.ports import free_base

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Echo:
    """Sends response bodies back; request trailers are its end, an empty body is a bug."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self.cancelled = self.failed = False

    async def receive(self, event: Event) -> bool:
        if isinstance(event, RequestTrailers):
            await self._write(ImmediateReply(200, (), b"end", {}, "end"))
            return True
        if not isinstance(event, ResponseBody):
            raise ProtocolError("not now")
        if not event.data:
            raise ValueError("a bug")
        await self._write(BodyReply(False, event.data, event.last))
        return False

    def cancel(self) -> None:
        self.cancelled = True

    def fail(self) -> None:
        self.failed = True


class Running:
    """A server, what it opened, and a client's channel to it."""

    def __init__(self, choice: GrpcServer, target: str) -> None:
        self.sessions: list[Echo] = []
        self.protocol_errors = 0
        self.server = server_of(choice, Service(self._open, self._count))
        self.channel = grpc.aio.insecure_channel(target)
        self.health = health_pb2_grpc.HealthStub(self.channel)  # type: ignore[no-untyped-call]

    def _open(self, write: Write, traceparent: Callable[[], str]) -> Echo:
        self.sessions.append(Echo(write))
        return self.sessions[-1]

    def _count(self) -> None:
        self.protocol_errors += 1

    def process(self) -> grpc.aio.StreamStreamCall[ProcessingRequest, ProcessingResponse]:
        return self.channel.stream_stream(
            f"/{SERVICE}/Process", ProcessingRequest.SerializeToString, ProcessingResponse.FromString
        )()


@pytest.fixture(params=GrpcServer)
def choice(request: pytest.FixtureRequest) -> GrpcServer:
    chosen: GrpcServer = request.param
    return chosen


@pytest.fixture
async def running(choice: GrpcServer, tmp_path: Path) -> AsyncIterator[Running]:
    here = Running(choice, f"unix:{tmp_path / 's'}")
    await here.server.start(UnixAddress(str(tmp_path / "s")))
    yield here
    await here.channel.close()
    await here.server.drain(0)


def body(data: bytes) -> ProcessingRequest:
    return ProcessingRequest(response_body={"body": data})


async def test_a_conversation(running: Running) -> None:
    call = running.process()
    for data in (b"a", bytes(100_000)):
        await call.write(body(data))
        answer = await call.read()
        assert isinstance(answer, ProcessingResponse)
        assert answer.response_body.response.body_mutation.streamed_response.body == data
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    assert running.sessions[0].cancelled


async def test_the_stream_is_closed_when_all_is_said(running: Running) -> None:
    call = running.process()
    await call.write(ProcessingRequest(request_trailers={}))
    answer = await call.read()
    assert isinstance(answer, ProcessingResponse)
    assert answer.immediate_response.body == b"end"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_broken_contract_is_counted_and_ends_the_stream(running: Running) -> None:
    call = running.process()
    await call.write(ProcessingRequest(response_trailers={}))
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert running.protocol_errors == 1
    assert running.sessions[0].failed


async def test_a_message_that_is_none_is_a_broken_contract(running: Running) -> None:
    call = running.channel.stream_stream(f"/{SERVICE}/Process")()
    await call.write(b"\xff\xff")
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert running.protocol_errors == 1


async def test_a_bug_ends_the_stream(running: Running) -> None:
    call = running.process()
    await call.write(body(b""))
    assert await call.code() is grpc.StatusCode.INTERNAL
    assert running.sessions[0].failed


async def test_who_hangs_up_cancels_the_session(running: Running) -> None:
    call = running.process()
    await call.write(body(b"a"))
    await call.read()
    assert not running.sessions[0].cancelled
    call.cancel()
    await until(lambda: running.sessions[0].cancelled)


async def test_health(running: Running) -> None:
    for service in ("", SERVICE):
        answer = await running.health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await running.health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


async def test_draining_is_told_and_waits_for_streams(running: Running) -> None:
    watch = running.health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    call = running.process()
    await call.write(body(b"a"))
    await call.read()
    draining = asyncio.ensure_future(running.server.drain(20))
    assert (await watch.read()).status == NOT_SERVING
    await call.write(body(b"b"))
    assert isinstance(await call.read(), ProcessingResponse)
    assert not draining.done()
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    await draining


async def test_draining_gives_notice_and_takes_calls_until_then(running: Running) -> None:
    watch = running.health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    draining = asyncio.ensure_future(running.server.drain(20, notice_s=60))
    assert (await watch.read()).status == NOT_SERVING
    call = running.process()
    await call.write(body(b"a"))
    assert isinstance(await call.read(), ProcessingResponse)
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    draining.cancel()


async def test_draining_does_not_wait_for_ever(running: Running) -> None:
    call = running.process()
    await call.write(body(b"a"))
    await call.read()
    await running.server.drain(0.05)
    assert running.sessions[0].cancelled


@pytest.mark.parametrize(("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("::", "[::1]"), ("::", "127.0.0.1")])
async def test_tcp_and_several_servers_of_one_port(choice: GrpcServer, host: str, asked: str) -> None:
    port = free_base()
    here, beside = Running(choice, f"{asked}:{port}"), Running(choice, "unix:unused")
    await here.server.start(TcpAddress(host, port))
    await beside.server.start(TcpAddress(host, port))
    assert (await here.health.Check(health_pb2.HealthCheckRequest())).status == SERVING
    for one in (here, beside):
        await one.channel.close()
        await one.server.drain(0)


async def test_an_address_that_can_not_be_bound(choice: GrpcServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nothing|No such file"):
        await Running(choice, "unix:unused").server.start(UnixAddress(str(tmp_path / "nothing" / "s")))


@pytest.mark.parametrize(("choice", "not_imported"), [(GrpcServer.GRPCIO, "hpack"), (GrpcServer.ASYNCIO, "grpc")])
def test_a_worker_imports_nothing_of_the_other_server(choice: GrpcServer, not_imported: str) -> None:
    code = f"""
import asyncio, sys
import extproc.app
from extproc.config.model import GrpcServer
from extproc.edge.server import server_of
from extproc.edge.service import Service

async def main():
    server_of(GrpcServer("{choice}"), Service(lambda write, traceparent: None, lambda: None))

asyncio.run(main())
sys.exit("{not_imported}" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
