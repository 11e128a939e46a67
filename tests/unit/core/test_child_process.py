"""Computations in a child process: results, errors, and that none outlives its parent's interest."""

import asyncio
import os
import signal
import time

import numpy as np
import pytest

from service.core.child_process import ChildProcess


def _noisy(value: int) -> int:
    print("a library prints")
    return value + 1


def _failing() -> None:
    raise ValueError("no such thing")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_one_process_computes_one_thing_after_another() -> None:
    async with ChildProcess() as process:
        pid = await process.run(os.getpid)
        assert pid != os.getpid()
        assert await process.run(_noisy, 1) == 2
        rows = np.arange(1_000_000.0)
        assert (await process.run(np.square, rows) == rows**2).all()
        with pytest.raises(ValueError, match="no such thing"):
            await process.run(_failing)
        assert await process.run(os.getpid) == pid
        assert await process.run(os.nice, 0) >= 10
    assert not _alive(pid)


async def test_cancelled_work_ends_at_once() -> None:
    async with ChildProcess() as process:
        pid = await process.run(os.getpid)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await process.run(time.sleep, 60)
    assert not _alive(pid)


async def test_a_killed_child_is_an_error() -> None:
    async with ChildProcess() as process:
        os.kill(await process.run(os.getpid), signal.SIGKILL)
        with pytest.raises((EOFError, BrokenPipeError)):
            await process.run(os.getpid)


@pytest.mark.parametrize("background", [True, False])
def test_its_priority_counts_beside_this_process_and_interrupts_pass_it_by(background: bool) -> None:
    with ChildProcess(background=background) as child:
        assert child.compute(os.getsid, 0) == os.getsid(0)
        assert child.compute(os.getpgid, 0) != os.getpgid(0)
        assert (child.compute(os.getpriority, os.PRIO_PROCESS, 0) > os.getpriority(os.PRIO_PROCESS, 0)) == background
