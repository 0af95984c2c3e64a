"""The whole local stack on ports of its own, and its repair after tests that broke it."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from unittest import mock

from extproc.config.model import GrpcServer
from extproc.stack.ports import from_base
from extproc.stack.stack import Stack, StackSettings
from tests.helpers.ports import free_base

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "envoy" / "gateway.yaml"
SERVER = "EXTPROC_SERVER"
"""The variable by which that configuration takes `service.server`."""


@contextlib.contextmanager
def running_stack(run_dir: pathlib.Path, config: pathlib.Path = CONFIG, workers: int = 1) -> Iterator[Stack]:
    """Everything that `extproc up` runs, started; nothing of it is left afterwards.

    Its workers have our own gRPC server, unless the environment says otherwise; those of `services` have grpcio's.
    """
    settings = StackSettings(config, run_dir, from_base(free_base()), workers)
    server = os.environ.get(SERVER, GrpcServer.ASYNCIO)
    with mock.patch.dict(os.environ, {SERVER: server}), contextlib.closing(Stack(settings)) as stack:
        stack.prepare()
        stack.start_all()
        yield stack


def mend(stack: Stack) -> None:
    """Start again, in order, what a test has stopped or killed."""
    for name in stack.components:
        process = stack.process(name)
        process.resume()
        if not process.running:
            process.kill()
            stack.start(name)
