"""`extproc serve` told to end while what it depends on hangs: it ends all the same, soon, and says what it cut off."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading

import httpx
import pytest

from extproc.config.model import GrpcServer
from extproc.ending import SERVICE_END_S, WORKER_END_S
from extproc.policies.pipeline import CLOSE_DEADLINE_S
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import Call, ScriptedUpstream
from tests.helpers.services import ServedGateway, Upstreams, served

DRAIN_S = 1.0  # as `served` configures it
BOUND_S = DRAIN_S + CLOSE_DEADLINE_S + WORKER_END_S + SERVICE_END_S
CHAT = {"model": "patient", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.mark.parametrize("server", GrpcServer)
def test_redis_and_a_model_server_hang_and_a_client_waits(tmp_path: pathlib.Path, server: GrpcServer) -> None:
    with (
        contextlib.closing(RedisServer(tmp_path)) as redis,
        contextlib.closing(ScriptedUpstream()) as upstream,
        served(tmp_path, Upstreams(openai=upstream.port), server=server) as gateway,
    ):
        upstream.script = Call.wait_until_left
        waiting = threading.Thread(target=ask, args=(gateway,))
        waiting.start()
        assert wait_until(lambda: len(upstream.seen) == 1)
        redis.pause()
        try:
            assert gateway.service.pid is not None
            os.kill(gateway.service.pid, signal.SIGTERM)
            assert wait_until(lambda: gateway.service.exit_code is not None, BOUND_S + 5.0), gateway.service.log_tail()
        finally:
            redis.resume()
            waiting.join()
        assert gateway.service.exit_code == 0
        assert '"streams are cut off"' in gateway.service.log.read_text()


def ask(gateway: ServedGateway) -> None:
    """Whatever comes of it."""
    with contextlib.suppress(httpx.HTTPError), gateway.client() as client:
        client.post("/v1/chat/completions", json=CHAT)
