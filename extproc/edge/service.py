"""The ext_proc service of one worker, and its health: what is said on a gRPC call, whichever server took it.

Each stream is one coroutine that reads a message, has the session answer it, and reads the next: Envoy's side of the
protocol is a conversation, and the coroutine is cancelled at once when Envoy gives the stream up, even while a policy
waits.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from google.protobuf.message import DecodeError

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.edge import codec
from extproc.edge.health import Health
from extproc.edge.stream import CallFailed, Handler, Status, Stream
from extproc.errors import ProtocolError
from extproc.exchange.messages import Event, Reply

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_log = logging.getLogger(__name__)


class Session(Protocol):
    """One exchange, as the service drives it."""

    async def receive(self, event: Event) -> bool:
        """True: all is said, nothing more of this exchange matters."""

    def cancel(self) -> None:
        """Envoy gave the stream up. Harmless after the end."""

    def fail(self) -> None:
        """A bug of ours, or a broken contract, ended the stream. Harmless after the end."""


Write = Callable[[Reply], Awaitable[None]]


OpenSession = Callable[[Write, Callable[[], str]], Session]
"""Given how to write, and how to learn the call's `traceparent`."""


class Service:
    """`open_session` starts one exchange; `on_protocol_error` counts broken contracts."""

    def __init__(self, open_session: OpenSession, on_protocol_error: Callable[[], None]) -> None:
        self._open_session = open_session
        self._on_protocol_error = on_protocol_error
        self.health = Health(frozenset({"", SERVICE}))
        self.handlers: Mapping[str, Handler] = {f"/{SERVICE}/Process": self._process, **self.health.handlers}
        """By path, as gRPC names methods."""

        self.streams = 0
        """Exchanges that are open now."""

    async def _process(self, stream: Stream) -> None:
        async def write(reply: Reply) -> None:
            await stream.write(codec.encode(reply).SerializeToString())

        session = self._open_session(write, lambda: stream.traceparent)
        self.streams += 1
        try:
            while (message := await stream.read()) is not None:
                if await session.receive(codec.decode(ProcessingRequest.FromString(message))):
                    return  # closing the stream now saves Envoy and us the wait for its half-close
        except (ProtocolError, DecodeError) as error:
            self._on_protocol_error()
            _log.warning("protocol error: %s", error)
            session.fail()
            raise CallFailed(Status.FAILED_PRECONDITION, "protocol error") from error
        except Exception:
            session.fail()
            raise
        finally:
            self.streams -= 1
            session.cancel()
