"""Ports move together and a taken one is noticed."""

import socket

from extproc.stack.ports import DOCUMENTED, SPAN, from_base
from tests.helpers.ports import free_base


def test_a_moved_stack_stays_within_its_span() -> None:
    ports = from_base(20000)
    assert len(set(ports.all)) == len(ports.all) == len(DOCUMENTED.all)
    assert max(ports.all) - min(ports.all) == SPAN - 1


def test_a_taken_port_is_noticed() -> None:
    ports = from_base(free_base())
    assert list(ports.taken()) == []
    with socket.create_server(("127.0.0.1", ports.triton_b.grpc)):
        assert list(ports.taken()) == [ports.triton_b.grpc]


def test_two_stacks_get_different_ports() -> None:
    assert set(from_base(free_base()).all).isdisjoint(from_base(free_base()).all)
