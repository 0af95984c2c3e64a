"""A process that was told to end does, whatever hangs."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from extproc.ending import finished
from extproc.supervisor import Worker

HANGS = """
import threading
from extproc.ending import end_within
threading.Thread(target=threading.Event().wait).start()  # the interpreter would wait for it for ever
end_within(0.2)
"""


def test_a_thread_that_hangs_is_named_and_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in wait" in done.stderr


async def test_a_task_that_cannot_be_cancelled_is_not_waited_for() -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    assert not await finished("a stubborn task", [task], 0.01)
    assert not task.done()
    released.set()
    await task


async def test_what_is_over_is_over() -> None:
    assert await finished("nothing", [], 0.0)
    assert await finished("something", [asyncio.create_task(asyncio.sleep(0))], 10.0)


async def test_a_worker_that_is_being_started_is_told_to_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that came before there was a process to send it to is not lost."""
    start = asyncio.create_subprocess_exec
    worker = Worker(tmp_path / "gateway.yaml", 0, str(tmp_path), None, lambda owed: None)

    async def started(*_: str, **options: Any) -> asyncio.subprocess.Process:
        worker.stop()
        return await start("sleep", "600", **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    async with asyncio.timeout(60):
        await worker.keep_running()
