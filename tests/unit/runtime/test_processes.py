"""How the processes of one machine start and stop."""

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from service.runtime import processes


@pytest.mark.parametrize("fails", [False, True])
async def test_what_ends_first_stops_the_others_in_order(fails: bool) -> None:
    stop, ended = asyncio.Event(), []

    async def first() -> None:
        await asyncio.sleep(0)
        if fails:
            raise RuntimeError("the model keeps failing")

    async def server() -> None:
        await stop.wait()
        await asyncio.sleep(0.01)  # answers what it has begun
        ended.append("in order")

    expected = pytest.raises(RuntimeError, match="keeps failing") if fails else nullcontext()
    with expected:
        await processes._until_all_end(stop, [server(), first()])
    assert ended == ["in order"]


@pytest.mark.parametrize("grouped", [True, False])
def test_a_worker_yields_by_itself_and_as_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    """Its nice value alone has no effect where the kernel shares the processor out by sessions."""
    autogroup, asked = tmp_path / "proc" / "autogroup", list[int]()
    if grouped:
        autogroup.parent.mkdir()
    monkeypatch.setattr(processes, "AUTOGROUP", autogroup)
    monkeypatch.setattr(os, "nice", asked.append)
    processes._yield_to_others()
    assert asked == [processes.WORKER_NICE]
    assert not grouped or autogroup.read_text() == str(processes.WORKER_NICE)
