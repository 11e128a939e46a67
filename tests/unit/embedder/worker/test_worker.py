"""The worker over the store in memory: what ends stored, what ends set aside, and who is charged for what."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.core import metrics
from service.core.collections import EmbedderSpec
from service.core.documents import Document
from service.core.errors import DatabaseUnavailable, ModelUnavailable, SpaceRefused
from service.core.ids import DocumentId, VersionNumber
from service.core.images import Image
from service.core.jobs import Lane
from service.core.ports.embedder import Encoder
from service.core.versions import EmbedderVersion, VersionState
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.worker import failure_policy
from service.embedder.worker.backoff import Backoff
from service.embedder.worker.document_chunker import chunk_documents
from service.embedder.worker.in_flight import BACKFILL_LIMITS, LIVE_LIMITS, EncodingThroughput
from service.embedder.worker.settings import WorkerSettings
from service.embedder.worker.version_gate import VersionGate
from service.embedder.worker.worker import Worker
from tests.encoders import ScriptedEncoder
from tests.fakes import Waiting
from tests.running import until as eventually
from tests.world import World, build, doc

pytestmark = pytest.mark.slow

DIMENSIONS = 32
LANES: list[Lane] = ["live", "backfill"]
LONG = "A sentence of seven words is here. " * 120


def counted(model: ScriptedEncoder) -> list[list[str]]:
    """Batches of documents, without those that test the model itself."""
    return [batch for batch in model.batches if "quick brown fox" not in batch[0]]


@pytest.fixture
async def world() -> World:
    return await build(None, dimensions=DIMENSIONS)


@pytest.fixture
def model() -> ScriptedEncoder:
    return ScriptedEncoder(DIMENSIONS)


def worker(world: World, model: Encoder, **settings: Any) -> Worker:
    limits: dict[str, Any] = {
        "claim": 100,
        "lease": timedelta(seconds=60),
        "max_attempts": 3,
        "batch_tokens": 256,
        "backoff": lambda: Backoff(initial=0.01, maximum=0.02),
    }
    limits |= {name: settings.pop(name) for name in WorkerSettings.__slots__ if name in settings}
    parts: dict[str, Any] = {
        **{name: getattr(world, name) for name in ("queue", "vectors", "versions", "collections")},
        "ensure": recorded(model)[0],
    }
    return Worker(**parts | settings, settings=WorkerSettings(**limits))


@asynccontextmanager
async def running(one: Worker) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(one.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


@asynccontextmanager
async def held(world: World, model: ScriptedEncoder, **settings: Any) -> AsyncIterator[asyncio.Event]:
    """A running worker in its first pass, which lasts until somebody opens the gate."""
    model.gate.clear()
    async with running(worker(world, model, **settings)) as stop:
        await eventually(model.started.is_set)
        yield stop


def recorded(model: Encoder) -> tuple[Callable[[EmbedderVersion], Awaitable[Encoder]], list[int]]:
    """An `ensure` that gives the model for every version, and the versions that it was asked for."""
    asked: list[int] = []

    async def ensure(version: EmbedderVersion) -> Encoder:
        asked.append(version.number)
        return model

    return ensure, asked


def jobs(world: World) -> dict[str, Waiting]:
    assert world.fake is not None
    return {key[1]: waiting for key, waiting in world.fake.jobs.items()}


def waiting(world: World) -> dict[str, Waiting]:
    return {name: job for name, job in jobs(world).items() if job.set_aside_at is None}


async def backfill(world: World, version: EmbedderVersion, *documents: Document) -> None:
    """Documents that were there before the version, as the jobs that fill it."""
    await world.put(*documents)
    assert world.fake is not None
    for document in documents:
        job = world.fake.jobs.pop((world.collection.id, document.id, VersionNumber(1)))
        world.fake.jobs[world.collection.id, document.id, version.number] = dataclasses.replace(job, priority=2)


async def queue(world: World, lane: Lane, *documents: Document) -> EmbedderVersion:
    """Put documents as jobs of one lane; the version that they are for."""
    if lane == "live":
        await world.put(*documents)
        return world.version
    version = await world.add_version(2, VersionState.BACKFILLING)
    await backfill(world, version, *documents)
    return version


async def drain(
    world: World, model: Encoder, until: Callable[[World], dict[str, Waiting]] = jobs, **settings: Any
) -> None:
    """Run a worker until no job is left, or none that `until` lists."""
    async with running(worker(world, model, **settings)):
        await eventually(lambda: not until(world))


async def names(world: World) -> set[str]:
    return {name for name, _ in await world.stored_chunks()}


def value(metric: Any, *labels: str) -> float:
    return float(metric.labels(*labels)._value.get())


async def test_documents_become_vectors_of_their_chunks(world: World, model: ScriptedEncoder) -> None:
    texts = {f"d{n}": "some words here. " * (n % 7 + 1) for n in range(60)} | {"long": LONG, "longer": LONG * 3}
    await world.put(*(doc(name, text, title="Title") for name, text in texts.items()))
    await drain(world, model)
    assert world.fake is not None
    space = world.fake.space(world.version)
    plain = HashingEncoder(EmbedderSpec(model=f"hashing:{DIMENSIONS}"))
    for name in texts:
        document = await world.get(name)
        (chunks,) = chunk_documents(plain, [document], world.version.chunking)
        rows = [space[DocumentId(name), number] for number in range(len(chunks))]
        assert [(row.start, row.end) for row in rows] == [(part.start, part.end) for part in chunks]
        expected = plain.encode([part.text for part in chunks], "document")
        np.testing.assert_allclose(np.stack([row.embedding for row in rows]), expected, atol=1e-3)
    assert len(space) > len(texts)
    for batch in model.batches:
        lengths = model.lengths(batch, "document")
        assert max(lengths) * len(batch) <= 256
    assert max(map(len, model.batches)) > 5


async def test_new_documents_are_picked_up_while_it_runs(world: World, model: ScriptedEncoder) -> None:
    async with running(worker(world, model)):
        for n in range(3):
            await world.put(doc(f"d{n}"))
            await eventually(lambda: not jobs(world))
    assert await names(world) == {"d0", "d1", "d2"}


@pytest.mark.parametrize("lane", LANES)
async def test_only_the_document_that_fails_alone_has_failed(world: World, model: ScriptedEncoder, lane: Lane) -> None:
    model.fail_on("poison", RuntimeError("kernel panic at token 7"))
    version = await queue(world, lane, *(doc(f"d{n}") for n in range(30)), doc("bad", "poison"))
    before = value(metrics.DOCUMENTS_SET_ASIDE, world.collection.name)
    await drain(world, model, until=waiting)
    assert {name for name, _ in await world.stored_chunks(version)} == {f"d{n}" for n in range(30)}
    (failed,) = await world.queue.failed(world.collection.id, None, 10)
    assert (failed.id, failed.attempts, failed.reason) == ("bad", 3, "RuntimeError: kernel panic at token 7")
    assert value(metrics.DOCUMENTS_SET_ASIDE, world.collection.name) == before + 1
    with_poison = [batch for batch in counted(model) if "poison" in " ".join(batch)]
    assert [len(batch) for batch in with_poison[-2:]] == [1, 1], "once it has failed, it is tried without others"


async def test_unusable_vectors_set_their_document_aside_and_nobody_else(world: World, model: ScriptedEncoder) -> None:
    model.spoil = lambda text: "spoiled" in text
    await world.put(
        *(doc(f"d{n}") for n in range(10)), doc("bad", "spoiled"), doc("long", LONG + " spoiled at the end.")
    )
    await drain(world, model, until=waiting)
    assert await names(world) == {f"d{n}" for n in range(10)}
    failed = await world.queue.failed(world.collection.id, None, 10)
    assert [one.id for one in failed] == ["bad", "long"]
    assert all("no usable vector" in one.reason for one in failed)


@pytest.mark.parametrize("how", ["raises", "gives NaN"])
async def test_a_failure_of_the_model_is_no_documents_failure(world: World, model: ScriptedEncoder, how: str) -> None:
    broken = True

    def fault(texts: Sequence[str]) -> None:
        if broken and how == "raises":
            raise RuntimeError("device lost")

    model.fault = fault
    model.spoil = lambda text: broken and how == "gives NaN"
    await world.put(*(doc(f"d{n}") for n in range(5)))
    before = value(metrics.WORKER_BACKOFF, "model")
    async with running(worker(world, model)):
        await eventually(lambda: value(metrics.WORKER_BACKOFF, "model") >= before + 2)
        assert all(job.attempts == 0 for job in jobs(world).values())
        broken = False
        await eventually(lambda: not jobs(world))
    assert len(await names(world)) == 5


async def test_a_short_absence_of_the_encoder_service_is_no_failure(world: World, model: ScriptedEncoder) -> None:
    away = 4

    def fault(texts: Sequence[str]) -> None:
        nonlocal away
        if away and "quick brown fox" not in texts[0]:  # and there again when it is asked whether it works
            away -= 1
            raise ModelUnavailable("it was being restarted")

    model.fault = fault
    await world.put(*(doc(f"d{n}") for n in range(8)))
    await drain(world, model, max_attempts=1)
    assert len(await names(world)) == 8
    assert len(counted(model)) <= 6  # a batch whose half meets it is not halved to the last document


async def test_a_model_that_keeps_failing_ends_the_worker_and_its_leases_count_as_lost(
    world: World, model: ScriptedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_policy, "MAX_MODEL_FAILURES", 3)
    model.fail_on("", RuntimeError("device lost"))
    await world.put(*(doc(f"d{n}") for n in range(5)))
    with pytest.raises(ModelUnavailable, match="device lost"):
        await asyncio.wait_for(worker(world, model).run(asyncio.Event()), 20)
    assert {job.worker is not None for job in jobs(world).values()} == {True}
    assert all(job.attempts == 0 for job in jobs(world).values())


async def test_a_full_device_halves_the_batches(world: World, model: ScriptedEncoder) -> None:
    def fault(texts: Sequence[str]) -> None:
        if max(model.lengths(texts, "document")) * len(texts) > 60:
            raise MemoryError("no room")

    model.fault = fault
    await world.put(*(doc(f"d{n}", "six words are in this one") for n in range(60)))
    await drain(world, model)
    assert len(await names(world)) == 60
    tried = [max(model.lengths(batch, "document")) * len(batch) for batch in model.batches]
    assert sum(size > 60 for size in tried) <= 6, "once learned, the smaller budget is kept"


async def test_a_device_without_room_for_one_text_is_no_documents_fault(world: World, model: ScriptedEncoder) -> None:
    model.fail_on("", MemoryError("no room"))
    await world.put(doc("d"))
    before = value(metrics.WORKER_BACKOFF, "memory")
    async with running(worker(world, model)):
        await eventually(lambda: value(metrics.WORKER_BACKOFF, "memory") > before)
        assert jobs(world)["d"].attempts == 0
        model.fault = lambda texts: None
        await eventually(lambda: not jobs(world))


class Flaky:
    """A port of which every call fails while `down`, and of which `after` calls succeed but do not say so."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.down = False
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.down:
                raise DatabaseUnavailable
            return await getattr(self._port, name)(*arguments)

        return call


async def test_an_absent_database_costs_time_and_nothing_else(world: World, model: ScriptedEncoder) -> None:
    ports = {name: Flaky(getattr(world, name)) for name in ("queue", "vectors", "versions")}
    await world.put(*(doc(f"d{n}") for n in range(50)))
    async with held(world, model, **ports, claim=32):
        for port in ports.values():
            port.down = True
        calls = ports["vectors"].calls
        model.gate.set()
        await eventually(lambda: ports["vectors"].calls >= calls + 3)
        assert all(job.attempts == 0 for job in jobs(world).values())
        for port in ports.values():
            port.down = False
        await eventually(lambda: not jobs(world))
    assert len(await names(world)) == 50
    assert sum(map(len, model.batches)) == 50, "what was encoded is not encoded again"


async def test_a_document_that_workers_died_with_is_counted_first_and_tried_alone(
    world: World, model: ScriptedEncoder
) -> None:
    await world.put(*(doc(f"d{n}") for n in range(5)), doc("suspect"))
    jobs(world)["suspect"].lost_leases = 3
    attempts: list[int] = []

    def fault(texts: Sequence[str]) -> None:
        if "text of suspect" in texts:
            attempts.append(jobs(world)["suspect"].attempts)
            assert len(texts) == 1

    model.fault = fault
    await drain(world, model)
    assert attempts == [1]
    assert "suspect" in await names(world), "success clears the innocent"


async def test_suspects_are_tried_one_at_a_time(world: World, model: ScriptedEncoder) -> None:
    """Whoever kills the worker while one is tried must not have the others pay for it."""
    suspects = [f"suspect{number}" for number in range(4)]
    await world.put(*map(doc, suspects))
    for name in suspects:
        jobs(world)[name].lost_leases = 3
    charged: list[int] = []
    model.fault = lambda texts: charged.append(sum(job.attempts for job in jobs(world).values()))
    await drain(world, model)
    assert charged == [1, 1, 1, 1]


@pytest.mark.parametrize("lane", LANES)
async def test_a_document_that_kills_workers_becomes_a_dead_letter_untried(
    world: World, model: ScriptedEncoder, lane: Lane
) -> None:
    await queue(world, lane, doc("killer"), doc("other"))
    jobs(world)["killer"].lost_leases, jobs(world)["killer"].attempts = 3, 2
    await drain(world, model, until=waiting)
    assert counted(model) == [["text of other"]]
    (failed,) = await world.queue.failed(world.collection.id, None, 10)
    assert (failed.id, failed.attempts) == ("killer", 3)


async def test_what_changed_while_it_was_encoded_is_encoded_again(world: World, model: ScriptedEncoder) -> None:
    await world.put(doc("d", "old"))
    before = value(metrics.FENCED_WRITES, world.collection.name)
    async with held(world, model):
        await world.put(doc("d", "new"), now=datetime.now(UTC))
        model.gate.set()
        await eventually(lambda: not jobs(world))
    assert model.batches == [["old"], ["new"]]
    assert await world.stored_chunks() == {("d", 0): 2}
    assert value(metrics.FENCED_WRITES, world.collection.name) == before + 1


async def test_leases_are_extended_while_work_takes_long(world: World, model: ScriptedEncoder) -> None:
    await world.put(doc("d"))
    async with held(world, model, lease=timedelta(seconds=0.3)):
        first = jobs(world)["d"].available_at
        await eventually(lambda: jobs(world)["d"].available_at > first + timedelta(seconds=0.6))
        assert await world.queue.claim([world.version], 10, "other", datetime.now(UTC), timedelta(seconds=1)) == ()
        model.gate.set()
        await eventually(lambda: not jobs(world))


async def test_stopping_finishes_what_is_in_hand_and_claims_no_more(world: World, model: ScriptedEncoder) -> None:
    await world.put(*(doc(f"d{n}") for n in range(10)))
    async with held(world, model) as stop:
        stop.set()
        await asyncio.sleep(0)
        await world.put(doc("late"))
        model.gate.set()
    assert await names(world) == {f"d{n}" for n in range(10)}
    assert set(jobs(world)) == {"late"}


@pytest.mark.parametrize("lane", LANES)
async def test_what_cannot_be_finished_in_time_is_given_back_without_a_failure(
    world: World, model: ScriptedEncoder, lane: Lane
) -> None:
    await queue(world, lane, *(doc(f"d{n}") for n in range(100)))
    async with held(world, model, grace=timedelta(seconds=0.05)) as stop:
        stop.set()
    model.gate.set()
    assert len(jobs(world)) == 100
    assert {(job.lease, job.worker, job.attempts) for job in jobs(world).values()} == {(None, None, 0)}


async def test_a_refused_version_holds_nobody_up_and_is_tried_again(
    world: World, model: ScriptedEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("d"))
    refused = True

    async def ensure(version: EmbedderVersion) -> Encoder:
        if version.number == 2 and refused:
            raise SpaceRefused("version 2: the weights differ")
        return model

    with caplog.at_level(logging.WARNING):
        async with running(worker(world, model, ensure=ensure)):
            await eventually(lambda: len(world.fake.jobs) == 1)  # type: ignore[union-attr]
            assert await world.stored_chunks() == {("d", 0): 1}
            assert await world.stored_chunks(second) == {}
            assert any(getattr(record, "reason", "") == "version 2: the weights differ" for record in caplog.records)
            refused = False
            await eventually(lambda: not jobs(world))
    assert await world.stored_chunks(second) == {("d", 0): 1}


async def test_a_collection_that_goes_away_takes_its_work_along(world: World, model: ScriptedEncoder) -> None:
    await world.put(doc("d"))
    async with held(world, model):
        assert world.fake is not None
        await world.collections.delete(world.collection.id)
        world.fake.jobs.clear()
        model.gate.set()
        other = await build(None, dimensions=DIMENSIONS)
        assert other.version.number == VersionNumber(1)
    assert counted(model) == [["text of d"]]


async def test_what_the_store_refuses_fails_its_document_alone(world: World, model: ScriptedEncoder) -> None:
    class Picky:
        async def write(self, version: EmbedderVersion, encoded: Sequence[Any]) -> frozenset[DocumentId]:
            if any(one.job.document_id == "bad" for one in encoded):
                raise ValueError("numeric field overflow")
            return await world.vectors.write(version, encoded)

    await world.put(*(doc(f"d{n}") for n in range(9)), doc("bad"))
    await drain(world, model, vectors=Picky(), until=waiting)
    assert await names(world) == {f"d{n}" for n in range(9)}
    (failed,) = await world.queue.failed(world.collection.id, None, 10)
    assert (failed.id, failed.reason) == ("bad", "ValueError: numeric field overflow")


async def test_a_database_that_refuses_everything_is_not_a_failure_of_the_model(
    world: World, model: ScriptedEncoder
) -> None:
    refusals = 0

    class Refusing:
        async def write(self, version: EmbedderVersion, encoded: Sequence[Any]) -> frozenset[DocumentId]:
            nonlocal refusals
            # Each round: the batch and, bisected, its documents.
            if refusals < 6 * failure_policy.MAX_MODEL_FAILURES:
                refusals += 1
                raise PermissionError("permission denied for table vectors")
            return await world.vectors.write(version, encoded)

    await world.put(*(doc(f"d{n}") for n in range(2)))
    await drain(world, model, vectors=Refusing(), until=waiting)
    assert await names(world) == {"d0", "d1"}


async def test_housekeeping_comes_around_whether_it_works_or_not(world: World, model: ScriptedEncoder) -> None:
    calls = 0

    async def housekeeping() -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("broom is broken")

    await world.put(doc("d"))
    async with running(worker(world, model, housekeeping=housekeeping, housekeeping_seconds=0.01)):
        await eventually(lambda: calls >= 3)
        await eventually(lambda: not jobs(world))


async def test_no_text_is_logged(world: World, model: ScriptedEncoder, caplog: pytest.LogCaptureFixture) -> None:
    model.spoil = lambda text: "secret" in text
    await world.put(doc("bad", "a secret text"), doc("d"))
    with caplog.at_level(logging.DEBUG, logger="service"):
        await drain(world, model, until=waiting)
    assert caplog.records
    assert not any("secret" in f"{record.__dict__}" for record in caplog.records)


@pytest.mark.slow
async def test_a_new_document_overtakes_a_backfill(world: World, model: ScriptedEncoder) -> None:
    second = await queue(world, "backfill", *(doc(f"old{n}", LONG) for n in range(60)))
    model.fault = lambda texts: time.sleep(0.01)  # it is the model that is busy
    async with running(worker(world, model)):
        for n in range(3):
            await eventually(lambda: sum("seven words" in batch[0] for batch in model.batches[-20:]) > 10)
            before = len(model.batches)
            await world.put(doc(f"new{n}"), now=datetime.now(UTC))
            await eventually(lambda n=n: (world.collection.id, f"new{n}", 1) not in world.fake.jobs)  # type: ignore[misc, union-attr]
            starts = [at for at, batch in enumerate(model.batches) if f"text of new{n}" in batch]
            assert starts[0] - before <= 20, "it waited for more than a look at the queue takes"
        assert len(waiting(world)) > 10, "the backfill was still going on"
        await eventually(lambda: not jobs(world))
    assert len({name for name, _ in await world.stored_chunks(second)}) == 63


async def test_a_backfill_is_claimed_when_no_live_write_is_left(
    world: World, model: ScriptedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue(world, "backfill", *(doc(f"old{n}") for n in range(50)))
    await world.put(*(doc(f"new{n}") for n in range(150)))
    claims: list[tuple[str, int, int]] = []
    claim = world.queue.claim

    async def watched(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        free = [name for (_, name, _), job in world.fake.jobs.items() if job.lease is None and job.priority < 2]  # type: ignore[union-attr]
        claims.append((arguments[-1], len(claimed), len(free)))
        return claimed

    monkeypatch.setattr(world.queue, "claim", watched)
    await drain(world, model, claim=20)
    assert sum(count for lane, count, _ in claims if lane == "live") == 300
    assert sum(count for lane, count, _ in claims if lane == "backfill") == 50
    assert all(free == 0 for lane, count, free in claims if lane == "backfill" and count)


def test_what_a_backfill_takes_up_at_once_is_less() -> None:
    throughput = EncodingThroughput(chunks_per_second=500.0, chunks_per_document=2.5)
    assert [throughput.documents_in(limits.claim_seconds) for limits in (LIVE_LIMITS, BACKFILL_LIMITS)] == [400, 200]
    assert BACKFILL_LIMITS.min_claim < LIVE_LIMITS.min_claim
    assert BACKFILL_LIMITS.code_points < LIVE_LIMITS.code_points


async def test_passes_of_a_backfill_are_short(world: World, model: ScriptedEncoder) -> None:
    def padded(batch: Sequence[str]) -> int:
        return max(model.lengths(batch, "document")) * len(batch)

    second = await world.add_version(2, VersionState.BACKFILLING)
    text = "twenty words are not many but enough to see how a batch of them is made of several documents here "
    model.fault = lambda texts: time.sleep(padded(texts) * 1e-4)
    await backfill(world, second, *(doc(f"old{n}", text + "old") for n in range(200)))
    await world.put(*(doc(f"new{n}", text + "new") for n in range(100)))
    await drain(world, model, batch_tokens=4096, claim=1000)
    live = [padded(batch) for batch in model.batches if batch[0].endswith("new")]
    short = [padded(batch) for batch in model.batches if batch[0].endswith("old")]
    assert max(live) > 1500
    assert max(short) <= 600, "50 ms at 10,000 tokens a second"
    assert sum(short) / len(short) > 200


async def test_texts_of_one_pass_have_like_lengths(world: World, model: ScriptedEncoder) -> None:
    await world.put(*(doc(f"d{n}", " ".join(["word"] * (5 if n % 8 else 100))) for n in range(64)))
    await drain(world, model, batch_tokens=4096, claim=1000)
    passes = [[length // 50 for length in model.lengths(batch, "document")] for batch in model.batches]
    assert sum(map(len, passes)) == 64
    assert all(len(set(lengths)) == 1 for lengths in passes)


async def test_the_active_version_comes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = await world.add_version(2, VersionState.READY)
    started: list[int] = []

    both = asyncio.Event()
    models = {number: ScriptedEncoder(DIMENSIONS) for number in (1, 2)}
    models[1].fault = lambda texts: started.append(1)
    models[2].fault = lambda texts: started.append(2)

    async def ensure(version: EmbedderVersion) -> Encoder:
        return models[version.number]

    claim = world.queue.claim

    async def gated(versions: Sequence[EmbedderVersion], *arguments: Any) -> Any:
        if len(versions) == 2:
            both.set()
        return await claim(versions, *arguments) if both.is_set() else ()

    monkeypatch.setattr(world.queue, "claim", gated)
    await world.put(*(doc(f"d{n}", LONG[:600]) for n in range(20)))
    await drain(world, models[1], ensure=ensure)
    assert len(await world.stored_chunks(second)) == 20
    assert started.count(1) == started.count(2) > 5
    last = len(started) - started[::-1].index(1)
    assert started[:last].count(2) <= 1, "while its last batch is computed, another model may begin"


async def test_a_paused_backfill_rests_and_live_writes_go_on(world: World, model: ScriptedEncoder) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    assert world.fake is not None
    versions = world.fake.collections.versions[world.collection.id]
    versions[1] = dataclasses.replace(second, paused=True)
    await backfill(world, second, *(doc(f"old{n}") for n in range(10)))
    async with running(worker(world, model)):
        await world.put(doc("new"))
        await eventually(lambda: set(jobs(world)) == {f"old{n}" for n in range(10)})
        assert {job.lease for job in jobs(world).values()} == {None}
        versions[1] = second
        await eventually(lambda: not jobs(world))
    assert len(await world.stored_chunks(second)) == 11


async def test_what_the_client_encodes_is_left_alone(world: World, model: ScriptedEncoder) -> None:
    ensure, asked = recorded(model)
    second = await world.add_version(2, VersionState.BACKFILLING)
    assert world.fake is not None
    spec = EmbedderSpec(model="external", dimensions=DIMENSIONS, identity="theirs")
    world.fake.collections.versions[world.collection.id][1] = dataclasses.replace(second, spec=spec)
    await world.put(doc("d"))
    # As claimable as can be: it is the worker that must not want it.
    world.fake.jobs[world.collection.id, DocumentId("d"), second.number].priority = 0
    async with running(worker(world, model, ensure=ensure)):
        await eventually(lambda: len(world.fake.jobs) == 1)  # type: ignore[union-attr]
    assert set(asked) == {1}
    assert world.fake.jobs[world.collection.id, DocumentId("d"), second.number].lost_leases == 0


async def test_a_backfill_keeps_to_its_rate(world: World, model: ScriptedEncoder) -> None:
    await queue(world, "backfill", *(doc(f"old{n}") for n in range(60)))
    started = time.monotonic()
    async with running(worker(world, model, backfill_per_second=100)):
        await world.put(*(doc(f"new{n}") for n in range(60)))
        await eventually(lambda: not jobs(world))
    assert time.monotonic() - started > 0.55


async def test_admission_ends_with_the_version(world: World, model: ScriptedEncoder) -> None:
    ensure, asked = recorded(model)
    version_gate = VersionGate(ensure, recheck_seconds=3600.0)
    version_gate.writable([world.version])
    await eventually(lambda: len(version_gate.writable([world.version])) == 1)
    assert (version_gate.writable([]), asked) == ({}, [1])
    assert version_gate.writable([world.version]) == {}, "its model is not held any longer"
    await eventually(lambda: len(version_gate.writable([world.version])) == 1)
    assert asked == [1, 1]
    await version_gate.close()


async def test_a_document_with_an_image_that_the_embedder_cannot_take_is_set_aside(
    world: World, model: ScriptedEncoder
) -> None:
    """As in a version of another model, to which a collection of images is re-indexed."""
    image = Image(digest=b"1", type="image/png", content=b"file", preview=b"small")
    await world.put(dataclasses.replace(doc("pictured"), image=image), doc("plain"))
    async with running(worker(world, model)):
        await eventually(lambda: not waiting(world))
    (set_aside,) = jobs(world).values()
    assert "this embedder takes none" in set_aside.reason
    assert set(await world.stored_chunks()) == {("plain", 0)}
