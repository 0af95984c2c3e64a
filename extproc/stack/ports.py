"""Which TCP ports the local stack uses: the documented ones, or all of them moved together.

Must not know: the components behind them.
"""

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

from extproc.stack.triton import TritonPorts


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """All of one stack's."""

    gateway: int
    gateway_admin: int
    service_admin: int
    triton_a: TritonPorts
    triton_b: TritonPorts

    @property
    def all(self) -> tuple[int, ...]:
        tritons = (dataclasses.astuple(self.triton_a), dataclasses.astuple(self.triton_b))
        return (self.gateway, self.gateway_admin, self.service_admin, *tritons[0], *tritons[1])

    def taken(self) -> Iterator[int]:
        """Those that something listens on already; Envoy would silently share its own with another Envoy."""
        for port in self.all:
            with contextlib.closing(socket.socket()) as probe:
                # As servers do, so that connections of the last run in TIME_WAIT don't count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    yield port


DOCUMENTED = Ports(10000, 9901, 9002, TritonPorts(8000, 8001, 8002), TritonPorts(8010, 8011, 8012))
SPAN = 23
"""How many ports from its base on a moved stack reaches."""


def from_base(base: int) -> Ports:
    """The ports of a stack moved to `base`."""
    return Ports(
        gateway=base,
        gateway_admin=base + 1,
        service_admin=base + 2,
        triton_a=TritonPorts(base + 10, base + 11, base + 12),
        triton_b=TritonPorts(base + 20, base + 21, base + 22),
    )
