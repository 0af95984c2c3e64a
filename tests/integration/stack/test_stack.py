"""The stack that other tests share can be broken and is mended."""

import os
import signal

import pytest

from extproc.stack.stack import ENVOY, REDIS, SERVICE, TRITON_A, TRITON_B, Stack
from tests.helpers.processes import wait_until
from tests.helpers.stack import mend


def test_components_start_in_the_order_in_which_they_need_each_other(stack: Stack) -> None:
    assert stack.components == (REDIS, TRITON_A, TRITON_B, SERVICE, ENVOY)


@pytest.mark.parametrize("name", [REDIS, TRITON_A, SERVICE, ENVOY])
def test_each_part_can_be_killed_and_mended(stack: Stack, name: str) -> None:
    before = stack.process(name).pid
    stack.process(name).kill()
    assert not stack.process(name).running
    assert stack.ended() is None, "an end that was asked for is no death"
    mend(stack)
    assert stack.process(name).running
    assert stack.process(name).pid != before


def test_a_death_nobody_asked_for_is_noticed(stack: Stack) -> None:
    process = stack.process(ENVOY)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: stack.ended() is process)
    assert process.exit_code == -signal.SIGKILL
