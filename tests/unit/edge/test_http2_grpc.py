"""Our HTTP/2 with gRPC's own client at the other end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.helpers.calls import Methods, serving, until

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@pytest.fixture
async def methods(tmp_path: Path) -> AsyncIterator[Methods]:
    async with serving(tmp_path / "s") as running:
        yield running


@pytest.fixture
async def channel(methods: Methods, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}", options=UNLIMITED) as opened:
        yield opened


async def echo(channel: grpc.aio.Channel, *messages: bytes) -> list[bytes]:
    call = channel.stream_stream("/test/Echo")(iter(messages))
    return [message async for message in call]


async def status_of(call: grpc.aio.Call) -> grpc.StatusCode:
    code: grpc.StatusCode = await call.code()
    return code


async def test_messages_come_back_in_order(channel: grpc.aio.Channel) -> None:
    messages = [b"", b"a", bytes(20_000), b"b" * 5]
    assert await echo(channel, *messages) == messages


async def test_messages_larger_than_every_window(channel: grpc.aio.Channel) -> None:
    message = bytes(range(256)) * 20_000
    assert await echo(channel, message, message) == [message, message]


async def test_many_calls_at_once(channel: grpc.aio.Channel) -> None:
    answers = await asyncio.gather(*(echo(channel, str(number).encode(), b"x" * number) for number in range(300)))
    assert answers == [[str(number).encode(), b"x" * number] for number in range(300)]


async def test_header_blocks_of_several_frames(channel: grpc.aio.Channel) -> None:
    metadata = tuple((f"x-{number}", "v" * 2000) for number in range(3))
    for _ in range(3):
        call = channel.stream_stream("/test/Echo")(iter([b"a"]), metadata=metadata)
        assert [message async for message in call] == [b"a"]


async def test_an_unknown_method(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/test/None")(b"a")
    assert await status_of(call) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_bug_is_an_internal_error_and_says_nothing(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/test/Fail")(iter([b"a"]))
    assert await status_of(call) is grpc.StatusCode.INTERNAL
    assert await call.details() == "internal error"


async def test_compressed_messages_are_refused(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/test/Echo")(iter([bytes(1000)]), compression=grpc.Compression.Gzip)
    assert await status_of(call) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_beyond_the_limit_is_refused(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/test/Echo")(iter([bytes((16 << 20) + 1)]))
    assert await status_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_cancelled_call_is_cancelled_here(channel: grpc.aio.Channel, methods: Methods) -> None:
    call = channel.stream_stream("/test/Hang")()
    await until(lambda: methods.running == 1)
    call.cancel()
    await until(lambda: methods.cancelled == 1)
    assert await echo(channel, b"a") == [b"a"]


async def test_what_one_call_does_not_read_holds_up_no_other(channel: grpc.aio.Channel, methods: Methods) -> None:
    stuck = channel.stream_stream("/test/Hang")()
    writing = asyncio.ensure_future(stuck.write(bytes(8 << 20)))
    await until(lambda: methods.running == 1)
    message = bytes(1 << 20)
    assert await echo(channel, message) == [message]
    stuck.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_draining_lets_calls_end_and_takes_no_more(channel: grpc.aio.Channel, methods: Methods) -> None:
    call = channel.stream_stream("/test/Echo")()
    await call.write(b"a")
    assert await call.read() == b"a"
    (connection,) = methods.connections
    connection.drain()
    await asyncio.sleep(0.05)
    await call.write(b"b")
    assert await call.read() == b"b"
    await call.done_writing()
    assert await status_of(call) is grpc.StatusCode.OK
    await until(lambda: connection not in methods.connections)
