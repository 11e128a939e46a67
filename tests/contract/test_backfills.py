"""The contract of the port `Backfills`, for the fake and for PostgreSQL."""

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from service.core.errors import VersionNotFound
from service.core.ids import VersionNumber
from service.core.ports.backfills import Backfills
from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, Progress, VersionState
from tests import second_version
from tests.second_version import backfills_of, drain, enqueue, set_state
from tests.world import LEASE, NOW, World, doc, encoded, later

NAMES = [f"d{number:02d}" for number in range(10)]


@dataclass
class Filling:
    """Ten documents that the active version has, and a second version that has none of them."""

    world: World
    backfills: Backfills
    version: EmbedderVersion

    async def advance(self, window: int = 100) -> BackfillStatus:
        return await self.backfills.advance(self.version, NOW, window)

    async def completeness(self) -> Completeness:
        return await self.backfills.completeness(self.version)

    async def progress(self, seconds: float = 0) -> Progress:
        return await self.backfills.progress(self.version, later(seconds))

    async def waiting(self) -> list[str]:
        """The documents whose jobs of the backfill can be claimed; they are given back at once."""
        claimed = await self.world.queue.claim([self.version], 100, "w", NOW, LEASE, "backfill")
        await self.world.queue.release([one.job for one in claimed], NOW)
        return sorted(one.job.document_id for one in claimed)

    async def encode(self, limit: int) -> None:
        """Encode so many documents of the backfill."""
        claimed = await self.world.queue.claim([self.version], limit, "w", NOW, LEASE, "backfill")
        assert len(await self.world.vectors.write(self.version, [encoded(one) for one in claimed])) == limit

    async def encode_one_a_second(self) -> None:
        """The first five of the ten."""
        await self.advance()
        for second in range(5):
            await self.backfills.record_progress(self.version, later(second))
            await self.encode(1)

    async def fill(self) -> None:
        assert (await self.advance()).everything
        await drain(self.world, self.version)

    async def dead_lettered(self, version: EmbedderVersion, name: str) -> None:
        await self.world.put(doc(name, "poison"))
        claimed = await self.world.queue.claim([version], 100, "w", NOW, LEASE)
        await self.world.queue.record_failure([one.job for one in claimed], "poison", 1, NOW, NOW)


@pytest.fixture
async def filled(world: World) -> Filling:
    await world.put(*map(doc, NAMES))
    await world.drain()
    version = await world.add_version(2, VersionState.BACKFILLING)
    return Filling(world, backfills_of(world), version)


async def test_everything_that_was_there_is_enqueued_and_encoded(filled: Filling) -> None:
    assert await filled.advance() == BackfillStatus(enqueued=10, waiting=10, everything=True)
    assert await filled.waiting() == NAMES
    assert await drain(filled.world, filled.version) == 10
    assert await filled.advance() == BackfillStatus(enqueued=10, waiting=0, everything=True)
    assert await filled.world.stored_chunks(filled.version) == {(name, 0): 1 for name in NAMES}


async def test_a_window_of_jobs_waits_at_a_time(filled: Filling) -> None:
    assert await filled.advance(4) == BackfillStatus(enqueued=4, waiting=4, everything=False)
    assert await filled.advance(4) == BackfillStatus(enqueued=4, waiting=4, everything=False)
    assert await filled.waiting() == NAMES[:4]
    await filled.encode(3)
    assert await filled.advance(4) == BackfillStatus(enqueued=7, waiting=4, everything=False)
    assert await filled.waiting() == NAMES[3:7]
    await filled.encode(4)
    assert await filled.advance(4) == BackfillStatus(enqueued=10, waiting=3, everything=True)


async def test_what_the_version_has_in_its_present_content_is_left_out(filled: Filling) -> None:
    await filled.world.put(doc("d03", "newer"), doc("new"))
    await drain(filled.world, filled.version)
    await filled.world.put(doc("d03", "newer", x=1))
    assert await filled.advance() == BackfillStatus(enqueued=9, waiting=9, everything=True)
    assert await filled.waiting() == [name for name in NAMES if name != "d03"]


async def test_what_was_just_written_stays_a_live_write(filled: Filling) -> None:
    await filled.world.put(doc("d03", "newer"))
    assert await filled.advance() == BackfillStatus(enqueued=9, waiting=9, everything=True)
    assert "d03" not in await filled.waiting()
    (live,) = await filled.world.queue.claim([filled.version], 100, "w", NOW, LEASE)
    assert (live.job.document_id, live.job.content_revision) == ("d03", 2)


async def test_a_job_of_the_backfill_that_was_written_meanwhile_waits_no_more(filled: Filling) -> None:
    await filled.advance()
    await filled.world.put(doc("d03", "newer"))
    assert (await filled.advance()).waiting == 9


async def test_deleted_documents_are_not_enqueued(filled: Filling) -> None:
    await filled.world.delete(*NAMES[:9])
    assert (await filled.advance(5)).enqueued <= 1
    assert await filled.advance(5) == BackfillStatus(enqueued=1, waiting=1, everything=True)
    assert await filled.waiting() == ["d09"]


async def test_an_empty_collection_is_filled_at_once(filled: Filling) -> None:
    await filled.world.delete(*NAMES)
    assert await filled.advance() == BackfillStatus(enqueued=0, waiting=0, everything=True)
    assert (await filled.completeness()).complete


async def test_what_was_set_aside_is_not_enqueued_again(filled: Filling) -> None:
    await filled.dead_lettered(filled.version, "d03")
    assert await filled.advance() == BackfillStatus(enqueued=9, waiting=9, everything=True)


async def test_a_job_from_before_the_version_failed_is_for_the_present_content(filled: Filling) -> None:
    """While it had failed it was not written, so what waits may be for content that is gone."""
    await filled.advance()
    await set_state(filled.world, filled.version, VersionState.FAILED)
    await filled.world.put(doc("d03", "newer"))
    await set_state(filled.world, filled.version, VersionState.BACKFILLING)
    await filled.backfills.restart(filled.version)
    await filled.fill()
    assert (await filled.world.stored_chunks(filled.version))["d03", 0] == 2
    assert (await filled.completeness()).complete


@pytest.mark.parametrize("state", [VersionState.INDEXING, VersionState.FAILED, VersionState.RETIRED])
async def test_only_a_version_that_is_backfilling_is_filled(filled: Filling, state: VersionState) -> None:
    await set_state(filled.world, filled.version, state)
    with pytest.raises(VersionNotFound):
        await filled.advance()
    with pytest.raises(VersionNotFound):
        await filled.backfills.restart(filled.version)


async def test_a_version_that_is_not_there_is_not_found(filled: Filling) -> None:
    missing = dataclasses.replace(filled.version, number=VersionNumber(9))
    for asked in (
        filled.backfills.advance(missing, NOW, 10),
        filled.backfills.restart(missing),
        filled.backfills.progress(missing, NOW),
        filled.backfills.completeness(missing),
    ):
        with pytest.raises(VersionNotFound):
            await asked


async def test_documents_wait_for_the_vectors_that_the_client_brings(world: World) -> None:
    await world.put(doc("a"), doc("b"))
    backfills = backfills_of(world)
    version = await second_version.add_external(world, 2, VersionState.BACKFILLING)
    await world.put(doc("c"))
    assert await backfills.advance(version, NOW, 100) == BackfillStatus(enqueued=2, waiting=3, everything=True)
    assert await drain(world, version) == 0
    assert (await backfills.completeness(version)).waiting == 3
    assert await backfills.progress(version, NOW) == Progress(done=0, total=3, failed=0)


async def test_nothing_waits_for_ever_for_a_document_that_is_gone(world: World) -> None:
    """The backfill saw "a" a moment before it was deleted."""
    backfills = backfills_of(world)
    version = await second_version.add_external(world, 2, VersionState.BACKFILLING)
    await enqueue(world, version, "a", priority=3)
    await backfills.advance(version, NOW, 100)
    assert await backfills.advance(version, NOW, 100) == BackfillStatus(enqueued=0, waiting=0, everything=True)


async def test_a_restart_finds_what_was_missed(filled: Filling) -> None:
    await filled.fill()
    await second_version.lose_vectors(filled.world, filled.version, "d03")
    await second_version.age_vectors(filled.world, filled.version, "d04")
    await second_version.lose_document(filled.world, filled.version, "d05")
    assert not (await filled.completeness()).agrees
    await filled.backfills.restart(filled.version)
    assert await filled.advance() == BackfillStatus(enqueued=2, waiting=2, everything=True)
    assert await filled.waiting() == ["d03", "d04"]
    await drain(filled.world, filled.version)
    assert (await filled.completeness()).complete
    assert ("d05", 0) not in await filled.world.stored_chunks(filled.version)


async def test_a_filled_version_is_complete(filled: Filling) -> None:
    await filled.fill()
    found = await filled.completeness()
    assert found.complete
    assert (found.documents, found.stored, found.waiting, found.failed, found.behind) == (10, 10, 0, 0, 0)
    assert found.documents_checksum == found.stored_checksum


@pytest.mark.parametrize(
    ("damages", "documents", "stored"),
    [
        ([second_version.lose_vectors], 10, 9),
        ([second_version.age_vectors], 10, 10),
        ([second_version.lose_document], 9, 10),
        ([second_version.lose_document, second_version.lose_vectors], 9, 9),
    ],
    ids=["a missing vector", "a vector of older content", "a vector without its document", "one of each kind"],
)
async def test_what_is_missing_or_too_much_is_noticed(
    filled: Filling, damages: list[Callable[..., Awaitable[None]]], documents: int, stored: int
) -> None:
    """One too many does not make up for one too few."""
    await filled.fill()
    for damage, name in zip(damages, NAMES, strict=False):
        await damage(filled.world, filled.version, name)
    found = await filled.completeness()
    assert (found.documents, found.stored, found.agrees) == (documents, stored, False)


async def test_documents_that_wait_are_on_neither_side(filled: Filling) -> None:
    await filled.advance()
    await filled.encode(4)
    found = await filled.completeness()
    assert (found.documents, found.stored, found.waiting, found.agrees, found.complete) == (4, 4, 6, True, False)


async def test_a_document_with_several_chunks_counts_once(filled: Filling) -> None:
    await filled.world.put(doc("d03", "0123456789" * 3))
    claimed = await filled.world.queue.claim([filled.version], 1, "w", NOW, LEASE)
    await filled.world.vectors.write(filled.version, [encoded(one, pieces=["0123456789"] * 3) for one in claimed])
    await filled.fill()
    assert (await filled.completeness()).complete


async def test_what_was_set_aside_here_alone_is_missing(filled: Filling) -> None:
    await filled.fill()
    await filled.dead_lettered(filled.version, "d03")
    await filled.world.drain()
    found = await filled.completeness()
    assert (found.failed, found.agrees, found.complete) == (1, True, False)


async def test_what_no_version_can_encode_is_missed_by_nobody(filled: Filling) -> None:
    await filled.fill()
    await filled.dead_lettered(filled.version, "d03")
    assert (await filled.completeness()).failed == 1
    await filled.dead_lettered(filled.world.version, "d03")
    found = await filled.completeness()
    assert (found.failed, found.complete) == (0, True)


async def test_behind_are_those_that_the_active_version_has_alone(filled: Filling) -> None:
    await filled.fill()
    await filled.world.put(doc("d03", "newer"), doc("d04", "newer"))
    found = await filled.completeness()
    assert (found.behind, found.documents, found.complete) == (0, 8, True)
    (claimed, _) = await filled.world.claim()
    await filled.world.store(encoded(claimed))
    assert (await filled.completeness()).behind == 1
    active = await filled.backfills.completeness(filled.world.version)
    assert (active.behind, active.failed, active.complete) == (0, 0, True)


async def test_progress_counts_documents_that_are_done(filled: Filling) -> None:
    assert await filled.progress() == Progress(done=0, total=10, failed=0)
    await filled.advance(4)
    assert await filled.progress() == Progress(done=0, total=10, failed=0)
    await filled.encode(3)
    assert await filled.progress() == Progress(done=3, total=10, failed=0)
    await filled.dead_lettered(filled.version, "d00")
    assert await filled.progress() == Progress(done=2, total=10, failed=1)
    await filled.world.delete("d01", "d09")
    assert await filled.progress() == Progress(done=1, total=8, failed=1)


async def test_rate_and_end_are_told_from_notes(filled: Filling) -> None:
    await filled.encode_one_a_second()
    progress = await filled.progress(5)
    assert (progress.done, progress.total) == (5, 10)
    assert (progress.per_second, progress.eta_seconds) == pytest.approx((1.0, 5.0))


async def test_a_restart_forgets_the_pace(filled: Filling) -> None:
    await filled.encode_one_a_second()
    await filled.backfills.restart(filled.version)
    assert (await filled.progress(5)).per_second is None


async def test_who_rests_has_no_end(filled: Filling) -> None:
    await filled.encode_one_a_second()
    await set_state(filled.world, filled.version, VersionState.BACKFILLING, paused=True)
    await filled.backfills.record_progress(filled.version, later(5))
    progress = await filled.progress(5)
    assert (progress.done, progress.per_second, progress.eta_seconds) == (5, None, None)


@pytest.mark.parametrize("state", [VersionState.VERIFYING, VersionState.READY])
async def test_what_is_filled_is_done_but_for_what_waits(filled: Filling, state: VersionState) -> None:
    await filled.fill()
    await set_state(filled.world, filled.version, state)
    await filled.world.put(doc("d03", "newer"), doc("new"))
    assert await filled.progress() == Progress(done=9, total=11, failed=0)
    assert await filled.backfills.progress(filled.world.version, NOW) == Progress(done=9, total=11, failed=0)


async def test_what_failed_stands_where_it_stopped(filled: Filling) -> None:
    await filled.advance(4)
    await filled.encode(3)
    await set_state(filled.world, filled.version, VersionState.FAILED)
    assert await filled.progress() == Progress(done=3, total=10, failed=0)


async def test_what_is_retired_has_nothing_to_do(filled: Filling) -> None:
    await set_state(filled.world, filled.version, VersionState.RETIRED)
    assert await filled.progress() == Progress(done=0, total=0, failed=0)
