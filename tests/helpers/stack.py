"""The whole local stack on ports of its own, and its repair after tests that broke it."""

import contextlib
import pathlib
from collections.abc import Iterator

from extproc.stack.ports import from_base
from extproc.stack.stack import Stack, StackSettings
from tests.helpers.ports import free_base

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "envoy" / "gateway.yaml"


@contextlib.contextmanager
def running_stack(run_dir: pathlib.Path, config: pathlib.Path = CONFIG, workers: int = 1) -> Iterator[Stack]:
    """Everything that `extproc up` runs, started; nothing of it is left afterwards."""
    with contextlib.closing(Stack(StackSettings(config, run_dir, from_base(free_base()), workers))) as stack:
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
