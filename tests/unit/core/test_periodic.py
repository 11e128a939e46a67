"""What is done again and again: no failure ends it, and none holds up the others."""

import asyncio
import logging

import pytest

from service.core import metrics, periodic
from service.core.concurrency import both
from service.core.errors import Conflict, ModelUnavailable, NotFound
from service.core.periodic import for_each_version, in_background, keep_running, repeat_every
from service.core.versions import EmbedderVersion, VersionState
from tests.world import build


async def test_an_error_of_one_version_is_logged_and_the_others_follow(caplog: pytest.LogCaptureFixture) -> None:
    world = await build(None)
    versions = [world.version, *[await world.add_version(number, VersionState.READY) for number in (2, 3, 4, 5)]]
    trouble = {2: NotFound("gone"), 3: Conflict("moved"), 4: ModelUnavailable("no model"), 5: ValueError("a fault")}
    seen = []

    async def work(version: EmbedderVersion) -> None:
        seen.append(version.number)
        if version.number in trouble:
            raise trouble[version.number]

    with caplog.at_level(logging.INFO):
        await for_each_version([*reversed(versions), versions[0]], work, failure_message="it waits")
    assert seen == [5, 4, 3, 2, 1, 1]
    told = [(record.levelname, record.version, getattr(record, "reason", None)) for record in caplog.records]  # type: ignore[attr-defined]
    assert told == [("ERROR", 5, None), ("WARNING", 4, "no model")]


async def test_a_failed_run_is_followed_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[Exception] = [ModelUnavailable("not yet"), ValueError("a fault")]
    done = asyncio.Event()

    async def work() -> None:
        if turns:
            raise turns.pop(0)
        done.set()

    task = asyncio.create_task(repeat_every("something", 0.0, work))
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    message = "background task failed; it runs again in 0 s"
    told = [(record.levelname, record.message) for record in caplog.records]
    assert told == [("WARNING", message), ("ERROR", message)]


async def test_a_task_that_died_runs_again_and_is_counted() -> None:
    turns: list[Exception] = [ValueError("a fault"), ModelUnavailable("not yet")]
    failures = metrics.BACKGROUND_FAILURES.labels("dying")
    before = failures._value.get()

    async def work() -> None:
        if turns:
            raise turns.pop(0)

    await asyncio.wait_for(keep_running("dying", work, 0.0), 5)
    assert failures._value.get() == before + 2


async def test_a_task_that_raises_at_its_end_keeps_no_other_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)
            if number == 1:
                raise ValueError("a fault at the end")

    async with in_background(*map(work, range(3))):
        await asyncio.sleep(0)
        ended.append(-1)
    assert ended == [-1, 2, 1, 0]
    assert [record.message for record in caplog.records] == ["background task failed at its end"]


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periodic, "_CANCEL_AGAIN_SECONDS", 0.01)
    lost = []

    async def work() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(True)
                if len(lost) > 1:
                    raise

    async with in_background(work()):
        await asyncio.sleep(0)
    assert len(lost) == 2


async def test_when_one_of_two_fails_the_other_one_stops() -> None:
    stopped = asyncio.Event()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise NotFound("gone")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(NotFound):
        await both(work(), fail())
    assert stopped.is_set()
