"""What Envoy tries again within a pool, and how often."""

import threading
import time

import pytest

from tests.helpers.failover import RETRIES, World, said
from tests.helpers.scripted_upstream import Call, answers

BUSY = b'{"error":{"message":"busy","type":"server_error","param":null,"code":null}}'
_CLIENTS = 20


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_another_server_of_the_pool_is_tried(world: World, status: int) -> None:
    world.main.script = answers(status, BUSY)
    for _ in range(2):
        answer = world.ask("twins")
        assert (said(answer), answer.headers["x-extproc-pool"]) == ("hello there", "twins")
    assert len(world.main.seen) >= 1
    assert len(world.twin.seen) == 2


def test_who_is_alone_and_busy_is_left_alone(world: World) -> None:
    world.main.script = answers(429, BUSY)
    answer = world.ask("lonely")
    assert (answer.status, answer.json()["error"]["code"]) == (503, "overloaded")
    assert len(world.main.seen) == 1


def test_retries_are_a_share_of_what_is_in_flight(world: World) -> None:
    """All of a crowd fail at once: a fifth of them are tried again, not all of them three times."""
    everybody = threading.Barrier(_CLIENTS)
    arrived: list[float] = []

    def script(call: Call) -> None:
        arrived.append(time.monotonic())
        if len(arrived) <= _CLIENTS:
            everybody.wait(10)
        call.answer(503, BUSY)

    world.main.script = script
    statuses: list[int] = []
    clients = [threading.Thread(target=lambda: statuses.append(world.ask("lonely").status)) for _ in range(_CLIENTS)]
    with world.books.accounted(_CLIENTS):
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert statuses == [503] * _CLIENTS
    assert _CLIENTS < len(arrived) < _CLIENTS * (1 + RETRIES) / 2
