"""How the processes of one machine start and stop."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest

from service.runtime import processes, supervisor
from service.runtime.settings import Settings
from service.runtime.supervisor import ManagedProcess


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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ManagedProcess]:
    """The processes that a supervisor would run."""
    children: list[ManagedProcess] = []

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[tuple[asyncio.Event, str, None]]:
        yield asyncio.Event(), "postgresql://", None

    async def run(given: list[ManagedProcess], *_: object) -> None:
        children.extend(given)

    monkeypatch.setattr(processes, "_process", opened)
    monkeypatch.setattr(supervisor, "run", run)
    return children


@pytest.mark.parametrize(("workers", "threads", "expected"), [(1, 0, None), (3, 0, "2"), (9, 0, "1"), (3, 5, None)])
async def test_several_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, started: list[ManagedProcess], workers: int, threads: int, expected: str | None
) -> None:
    """One has them all, and what an operator sets is kept."""

    monkeypatch.delenv("AZIMUTH_THREADS", raising=False)
    monkeypatch.setattr(processes, "usable_cores", lambda: 8)
    await processes.up(Settings(port=20_000, threads=threads), workers=workers)
    assert [one.environment.get("AZIMUTH_THREADS") for one in started] == [None, *[expected] * workers]


async def test_a_worker_for_each_device_with_a_port_of_its_own(started: list[ManagedProcess]) -> None:
    await processes.workers_on(Settings(worker_port=18201), ["cuda:0", "cuda:1"])
    environments = [one.environment for one in started]
    assert [one["AZIMUTH_DEVICE"] for one in environments] == ["cuda:0", "cuda:1"]
    assert {one["AZIMUTH_DATABASE_URL"] for one in environments} == {"postgresql://"}
    assert len({one["AZIMUTH_WORKER_PORT"] for one in environments}) == 2
