"""`extproc up`: the local stack on a terminal, until Ctrl-C or until a part of it dies."""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.stack.process import Process
    from extproc.stack.stack import Stack

_POLL_S = 0.2
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_commands(commands: "Commands") -> None:
    up = commands.add_parser("up", help="run the local stack: Redis, two Tritons, the service, Envoy")
    add_config(up)
    add_stack_place(up)
    up.add_argument("--workers", type=_positive, default=1, metavar="N", help="worker processes of the service")
    up.add_argument("--logs", action="store_true", help="show what every component logs")
    up.set_defaults(run=_up)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)


def _up(arguments: argparse.Namespace) -> int:
    from extproc.stack.artifact import ArtifactError
    from extproc.stack.ports import DOCUMENTED, from_base
    from extproc.stack.run_dir import InUse, default_run_dir
    from extproc.stack.stack import PortsTaken, Stack, StackSettings

    ports = from_base(arguments.port_base) if arguments.port_base else DOCUMENTED
    run_dir = arguments.run_dir or default_run_dir(ports.gateway)
    settings = StackSettings(arguments.config, run_dir, ports, arguments.workers)
    cancel = threading.Event()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.closing(Stack(settings, cancel)) as stack:
            return _run(stack, cancel, show_logs=arguments.logs)
    except (ArtifactError, InUse, PortsTaken) as error:
        raise CommandFailed(str(error)) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Nothing runs yet, so work in progress can simply be abandoned."""
    raise KeyboardInterrupt


def _run(stack: "Stack", cancel: threading.Event, *, show_logs: bool) -> int:
    from extproc.cli.progress import shown
    from extproc.stack.process import Cancelled, NotReady

    with shown() as progress:
        stack.prepare(progress)
    # From here on there are processes to end in order, so an interruption may not come just anywhere.
    with _setting(cancel):
        try:
            _start(stack)
            _say_what_to_try(stack)
            failed = _watch(stack, cancel, show_logs=show_logs)
        except Cancelled:
            failed = None
        except NotReady as error:
            print(f"\n{error}", file=sys.stderr)
            failed = stack.process(error.name)
        if failed is not None:
            print(f"the end of its log, {failed.log}:\n{failed.log_tail()}", file=sys.stderr)
        print("stopping", flush=True)
        stack.close()
    return 0 if failed is None else 1


@contextlib.contextmanager
def _setting(cancel: threading.Event) -> Iterator[None]:
    """Signals that end a program set `cancel` in here, whatever is going on."""
    before = {number: signal.signal(number, lambda number, frame: cancel.set()) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(stack: "Stack") -> None:
    began_s = time.monotonic()
    for name in stack.components:
        component_began_s = time.monotonic()
        print(f"{name:<10}", end="", flush=True)
        stack.start(name)
        print(f" ready  {time.monotonic() - component_began_s:5.1f} s", flush=True)
    print(f"{'all':<10} ready  {time.monotonic() - began_s:5.1f} s\n", flush=True)


def _say_what_to_try(stack: "Stack") -> None:
    from extproc.cli.suggestion import suggestion

    key = stack.create_key("extproc up")
    print(suggestion(stack.config, stack.base_url, key))
    print(f"logs: {stack.logs}   Ctrl-C stops everything\n", flush=True)


def _watch(stack: "Stack", cancel: threading.Event, *, show_logs: bool) -> "Process | None":
    """Wait for `cancel`, or for a component that ends by itself: that one is returned."""
    from extproc.cli.log_stream import LogStream
    from extproc.stack.process import describe_exit

    stream = LogStream({name: stack.process(name).log for name in stack.components}) if show_logs else None
    while not cancel.wait(_POLL_S):
        if stream is not None:
            stream.show_new()
        _follow_config(stack)
        ended = stack.ended()
        if ended is not None and ended.exit_code is not None:
            print(f"{ended.name} ended with {describe_exit(ended.exit_code)}", file=sys.stderr)
            return ended
    return None


def _follow_config(stack: "Stack") -> None:
    from extproc.errors import ConfigError

    try:
        if stack.follow_config():
            print(f"configuration {stack.config.version} in force", flush=True)
    except ConfigError as error:
        print(f"{error}\nthe configuration in force stays", file=sys.stderr, flush=True)
