"""The contract of the port `JobQueue`, for the fake and for PostgreSQL."""

import asyncio
import dataclasses
from collections.abc import Iterable
from datetime import timedelta
from uuid import uuid4

import pytest
from psycopg.errors import DivisionByZero

from service.core.ids import DocumentId
from service.core.jobs import ClaimedJob, QueueStatus
from service.core.versions import EmbedderVersion, VersionState
from service.store.postgres import queue as module
from tests.second_version import add_external, drain, enqueue
from tests.world import LEASE, NOW, World, doc, encoded, later


def ids(claimed: Iterable[ClaimedJob]) -> list[str]:
    return [one.job.document_id for one in claimed]


async def put_and_claim(world: World) -> ClaimedJob:
    """The job of a new document `a`."""
    await world.put(doc("a"))
    (claimed,) = await world.claim()
    return claimed


async def test_old_before_new(world: World) -> None:
    await world.put(doc("c"), now=later(0))
    await world.put(doc("b"), now=later(1))
    await world.put(doc("a"), now=later(2))
    assert ids(await world.claim(limit=2, now=later(3))) == ["c", "b"]
    assert ids(await world.claim(now=later(3))) == ["a"]


async def test_a_claim_brings_the_document_as_it_is_now(world: World) -> None:
    await world.put(doc("a", "text", "title", x=1))
    await world.put(doc("a", "text", "title", x=2))
    (claimed,) = await world.claim()
    assert claimed.document == await world.get("a")
    assert claimed.document.metadata == {"x": 2}
    assert (claimed.job.content_revision, claimed.job.attempts, claimed.lost_leases) == (1, 0, 0)


async def test_a_leased_job_is_nobody_elses_until_its_lease_ends(world: World) -> None:
    await world.put(doc("a"))
    assert ids(await world.claim(worker="w1")) == ["a"]
    assert await world.claim(worker="w2", now=NOW + LEASE - timedelta(seconds=1)) == ()
    (again,) = await world.claim(worker="w2", now=NOW + LEASE)
    assert again.lost_leases == 1
    (thrice,) = await world.claim(worker="w3", now=NOW + 2 * LEASE)
    assert thrice.lost_leases == 2


async def test_a_worker_that_lost_touch_with_the_database_is_not_taken_for_dead(world: World) -> None:
    await world.put(doc("a"))
    for number in range(4):
        (again,) = await world.claim(worker="w1", now=NOW + number * LEASE)
        assert again.lost_leases == 0


async def test_a_claim_whose_documents_cannot_be_read_leases_nothing(
    postgres: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await postgres.put(doc("a"))
    with monkeypatch.context() as broken:
        broken.setitem(module.SQL._queries, "documents", "SELECT 1 / 0")
        with pytest.raises(DivisionByZero):
            await postgres.claim(worker="w1")
    (claimed,) = await postgres.claim(worker="w2")
    assert claimed.lost_leases == 0


async def test_only_the_named_versions_are_claimed(world: World) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("a"))
    assert await world.queue.claim([], 10, "w", NOW, LEASE) == ()
    (claimed,) = await world.queue.claim([second], 10, "w", NOW, LEASE)
    assert claimed.job.version == 2
    assert ids(await world.claim()) == ["a"]


async def test_jobs_of_several_collections_in_one_claim(world: World) -> None:
    await world.put(doc("a", "here"))
    other = await world.collections.create(
        type(world.collection.name)("other"), world.collection.settings, world.version.identity, {}, NOW
    )
    (version,) = await world.versions.of(other.id)
    await world.documents.put(other.id, [doc("a", "there")], later(1))
    claimed = await world.queue.claim([world.version, version], 10, "w", later(1), LEASE)
    assert [(one.job.collection_id, one.document.text) for one in claimed] == [
        (world.collection.id, "here"),
        (other.id, "there"),
    ]


async def test_a_collection_does_not_wait_for_the_backlog_of_another_one(world: World) -> None:
    await world.put(*(doc(f"old{n}", "backlog") for n in range(50)))
    other = await world.collections.create(
        type(world.collection.name)("other"), world.collection.settings, world.version.identity, {}, NOW
    )
    (version,) = await world.versions.of(other.id)
    await world.documents.put(other.id, [doc("new1", "fresh"), doc("new2", "fresh")], later(60))
    claimed = await world.queue.claim([world.version, version], 10, "w", later(60), LEASE)
    assert len(claimed) == 10
    assert {"new1", "new2"} < set(ids(claimed))
    assert len(await world.queue.claim([world.version, version], 100, "w", later(60), LEASE)) == 42


async def test_of_live_writes_those_of_the_active_version_come_first(world: World) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("old"), now=NOW)
    await world.put(doc("new"), now=later(5))
    claimed = await world.queue.claim([second, world.version], 10, "w", later(5), LEASE)
    assert ids(claimed) == ["old", "new"] * 2
    assert [one.job.version for one in claimed] == [1, 1, 2, 2]


async def test_each_lane_has_its_own_jobs(world: World) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("filled"), doc("written"))
    await enqueue(world, second, "filled")
    assert ids(await world.queue.claim([second], 10, "w", NOW, LEASE)) == ["written"]
    assert ids(await world.queue.claim([second], 10, "w", NOW, LEASE, "backfill")) == ["filled"]
    assert await world.queue.claim([world.version], 10, "w", NOW, LEASE, "backfill") == ()


async def test_a_live_write_takes_a_job_of_the_backfill_over(world: World) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("a"))
    await enqueue(world, second, "a")
    (slow,) = await world.queue.claim([second], 10, "slow", NOW, LEASE, "backfill")
    await world.put(doc("a", "newer"), now=later(1))
    assert await world.queue.claim([second], 10, "w", later(1), LEASE, "backfill") == ()
    (fresh,) = await world.queue.claim([second], 10, "w", later(1), LEASE)
    assert fresh.job.content_revision == 2
    assert await world.vectors.write(second, [encoded(slow)]) == frozenset()


async def test_what_the_client_encodes_is_in_no_lane(world: World) -> None:
    brought = await add_external(world, 2, VersionState.READY)
    await world.put(doc("a"))
    assert await world.queue.claim([brought], 10, "w", NOW, LEASE) == ()
    assert await world.queue.claim([brought], 10, "w", NOW, LEASE, "backfill") == ()
    assert (await world.queue.status(world.collection.id, brought.number, NOW)).pending == 1


async def test_a_job_for_content_that_is_gone_is_ended(world: World) -> None:
    """A backfill saw "a" and "b" as they were; meanwhile one was replaced and encoded, the other deleted."""
    second = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("a"), doc("b"))
    await world.put(doc("a", "newer"))
    await world.delete("b")
    await drain(world, second)
    await enqueue(world, second, "a", content_revision=1)
    await enqueue(world, second, "b", content_revision=1)
    assert (await world.queue.status(world.collection.id, second.number, NOW)).pending == 2
    assert await world.queue.claim([second], 10, "w", NOW, LEASE, "backfill") == ()
    assert (await world.queue.status(world.collection.id, second.number, NOW)).pending == 0
    assert await world.stored_chunks(second) == {("a", 0): 2}


@pytest.mark.database
async def test_two_claimers_never_share_a_job(postgres: World) -> None:
    await postgres.put(*(doc(f"d{number:03d}") for number in range(300)))

    async def take(worker: str) -> list[str]:
        taken: list[str] = []
        while claimed := await postgres.claim(limit=7, worker=worker):
            taken += ids(claimed)
        return taken

    taken = [name for part in await asyncio.gather(*map(take, "abcdef")) for name in part]
    assert sorted(taken) == [f"d{number:03d}" for number in range(300)]


@pytest.mark.database
async def test_a_claim_is_committed_before_anything_else_happens(postgres: World) -> None:
    await postgres.put(doc("a"))
    (claimed,) = await postgres.claim(worker="w7")
    assert postgres.pool is not None
    async with postgres.pool.connection() as connection:
        cursor = await connection.execute("SELECT lease::text, worker, available_at FROM jobs")
        assert await cursor.fetchall() == [(claimed.job.lease, "w7", NOW + LEASE)]
        cursor = await connection.execute("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in trans%'")
        assert await cursor.fetchall() == [(0,)]


@pytest.mark.database
async def test_a_job_without_its_document_is_ended(postgres: World) -> None:
    await postgres.put(doc("a"), doc("b"))
    assert postgres.pool is not None
    await postgres.pool.execute("DELETE FROM documents WHERE document_id = 'a'")
    assert ids(await postgres.claim()) == ["b"]
    assert await postgres.pool.fetch_all("SELECT document_id FROM jobs") == [("b",)]


async def test_changed_content_takes_the_job_from_whoever_has_it(world: World) -> None:
    stale = await put_and_claim(world)
    await world.put(doc("a", "newer"))
    (fresh,) = await world.claim(worker="fast")
    assert (fresh.job.content_revision, fresh.lost_leases) == (2, 0)
    assert await world.store(encoded(stale)) == frozenset()
    assert await world.store(encoded(fresh)) == {"a"}
    assert await world.store(encoded(stale)) == frozenset()
    assert await world.stored_chunks() == {("a", 0): 2}


async def test_a_lost_lease_cannot_store(world: World) -> None:
    slow = await put_and_claim(world)
    (fast,) = await world.claim(worker="fast", now=NOW + LEASE)
    assert await world.store(encoded(slow)) == frozenset()
    assert await world.store(encoded(fast)) == {"a"}


async def test_a_lease_is_good_for_the_content_that_it_was_given_for(world: World) -> None:
    claimed = await put_and_claim(world)
    forged = dataclasses.replace(claimed, job=dataclasses.replace(claimed.job, content_revision=7))
    assert await world.store(encoded(forged)) == frozenset()
    assert await world.store(encoded(claimed)) == {"a"}


async def test_a_lost_lease_is_skipped_beside_the_one_that_took_it(world: World) -> None:
    """One worker may hold both: the document was written again while its old content was encoded."""
    await world.put(doc("a", "first"), doc("b"))
    old, other = await world.claim()
    await world.put(doc("a", "second"), now=later(1))
    (new,) = await world.claim(now=later(1))
    assert await world.store(encoded(old, pieces=["fir", "st"]), encoded(other), encoded(new)) == {"a", "b"}
    assert await world.stored_chunks() == {("a", 0): 2, ("b", 0): 1}


async def test_an_expired_lease_that_nobody_took_can_still_store(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.queue.extend([claimed.job], later(-1))
    assert await world.store(encoded(claimed)) == {"a"}


async def test_a_deleted_document_cannot_be_stored(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.delete("a")
    assert await world.store(encoded(claimed)) == frozenset()
    await world.put(doc("a"))
    assert await world.store(encoded(claimed)) == frozenset()
    assert await world.stored_chunks() == {}


async def test_heartbeats_keep_a_lease(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.queue.extend([claimed.job], NOW + 2 * LEASE)
    assert await world.claim(now=NOW + LEASE) == ()
    assert len(await world.claim(now=NOW + 2 * LEASE)) == 1


async def test_released_work_is_available_from_then_on_uncharged(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.queue.release([claimed.job], later(10))
    assert await world.claim(now=later(9)) == ()
    (again,) = await world.claim(now=later(10))
    assert (again.job.attempts, again.lost_leases) == (0, 0)
    assert again.job.lease != claimed.job.lease
    assert await world.store(encoded(claimed)) == frozenset()


async def test_whoever_lost_a_lease_moves_nothing(world: World) -> None:
    slow = await put_and_claim(world)
    (fast,) = await world.claim(worker="fast", now=NOW + LEASE)
    await world.queue.release([slow.job], NOW)
    await world.queue.extend([slow.job], NOW)
    assert await world.queue.record_failure([slow.job], "late", 1, NOW, NOW) == ()
    forged = dataclasses.replace(fast.job, lease=str(uuid4()))
    await world.queue.release([forged], NOW)
    assert await world.claim(now=NOW + LEASE) == ()
    assert await world.store(encoded(fast)) == {"a"}


async def test_nothing_to_do_is_no_error(world: World) -> None:
    await world.queue.extend([], NOW)
    await world.queue.release([], NOW)
    assert await world.queue.record_failure([], "none", 3, NOW, NOW) == ()
    assert await world.store() == frozenset()


@pytest.mark.database
async def test_the_same_jobs_in_opposite_orders_never_wait_for_each_other(
    postgres: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks are taken in the order of ids: no try is in vain."""
    monkeypatch.setattr(module, "retrying", lambda work: work())
    await postgres.put(*(doc(f"d{number:03d}") for number in range(400)))
    jobs = [one.job for one in await postgres.claim(limit=400)]
    await asyncio.gather(*(postgres.queue.extend(jobs[:: (-1) ** turn], later(turn)) for turn in range(16)))
    assert len(await postgres.claim(limit=400, now=later(20))) == 400


async def test_a_charged_document_comes_back_and_is_set_aside_at_the_limit(world: World) -> None:
    await world.put(doc("a"), doc("b"))
    first = {one.job.document_id: one for one in await world.claim()}
    assert await world.queue.record_failure([first[DocumentId("a")].job], "boom", 2, later(1), later(5)) == ()
    (again,) = await world.claim(now=later(5))
    assert (again.job.document_id, again.job.attempts, again.lost_leases) == ("a", 1, 0)
    assert await world.queue.record_failure([again.job], "bang", 2, later(6), later(9)) == ("a",)
    assert await world.claim(now=later(10)) == ()
    (failed,) = await world.queue.failed(world.collection.id, None, 10)
    assert (failed.id, failed.version, failed.attempts, failed.reason) == ("a", 1, 2, "bang")
    assert failed.failed_at == later(6)


async def test_a_document_charged_beforehand_can_still_be_stored(world: World) -> None:
    """The attempt is counted before a risky document is tried, so that a crash cannot escape it."""
    claimed = await put_and_claim(world)
    assert await world.queue.record_failure([claimed.job], "tried alone", 3, NOW, NOW + LEASE) == ()
    assert await world.store(encoded(claimed)) == {"a"}


async def test_the_lease_of_a_charged_attempt_is_not_lost_once_more(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.queue.record_failure([claimed.job], "tried alone", 3, NOW, NOW + LEASE)
    (again,) = await world.claim(now=NOW + LEASE)
    assert (again.job.attempts, again.lost_leases) == (1, 0)
    assert await world.store(encoded(claimed)) == frozenset()


async def test_what_was_set_aside_cannot_be_stored_by_its_last_holder(world: World) -> None:
    claimed = await put_and_claim(world)
    assert await world.queue.record_failure([claimed.job], "poison", 1, NOW, NOW) == ("a",)
    assert await world.store(encoded(claimed)) == frozenset()


async def test_new_content_gets_a_new_chance(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.queue.record_failure([claimed.job], "poison", 1, NOW, NOW)
    await world.put(doc("a", "better"), now=later(1))
    (again,) = await world.claim(now=later(1))
    assert (again.job.attempts, again.lost_leases) == (0, 0)
    assert await world.queue.failed(world.collection.id, None, 10) == ()


async def test_any_reason_can_be_kept(world: World) -> None:
    claimed = await put_and_claim(world)
    await world.queue.record_failure([claimed.job], "NUL \0, half a pair \ud800, " + "long " * 1_000, 1, NOW, NOW)
    (failed,) = await world.queue.failed(world.collection.id, None, 10)
    assert failed.reason.startswith("NUL ")


async def test_failed_documents_are_paged_by_id(world: World) -> None:
    second = await world.add_version(2, VersionState.READY)
    await world.put(*(doc(name) for name in ("a", "B", "é", "z")))
    both = await world.queue.claim([world.version, second], 10, "w", NOW, LEASE)
    await world.queue.record_failure([one.job for one in both], "poison", 1, NOW, NOW)
    first = await world.queue.failed(world.collection.id, None, 3)
    assert [(one.id, one.version) for one in first] == [("B", 2), ("a", 2), ("z", 2)]
    assert [one.id for one in await world.queue.failed(world.collection.id, first[-1].id, 3)] == ["é"]


async def test_retry_forgets_attempts(world: World) -> None:
    await world.put(doc("a"), doc("b"))
    claimed = await world.claim()
    await world.queue.record_failure([one.job for one in claimed], "poison", 1, NOW, NOW)
    assert await world.queue.retry(world.collection.id, later(1)) == 2
    assert await world.queue.retry(world.collection.id, later(1)) == 0
    assert await world.claim(now=NOW) == ()
    again = await world.claim(now=later(1))
    assert sorted((one.job.document_id, one.job.attempts, one.lost_leases) for one in again) == [
        ("a", 0, 0),
        ("b", 0, 0),
    ]


async def test_status_tells_of_one_version(world: World) -> None:
    second = await world.add_version(2, VersionState.BACKFILLING)

    async def status(version: EmbedderVersion) -> QueueStatus:
        return await world.queue.status(world.collection.id, version.number, later(10))

    assert await status(world.version) == QueueStatus(pending=0, failed=0, oldest_seconds=0.0)
    await world.put(doc("a"), doc("b"), now=later(0))
    await world.put(doc("c"), now=later(4))
    claimed = await world.claim(now=later(4))
    await world.queue.record_failure([claimed[0].job], "poison", 1, later(4), later(4))
    await world.store(encoded(claimed[1]))
    assert await status(world.version) == QueueStatus(pending=1, failed=1, oldest_seconds=6.0)
    assert await status(second) == QueueStatus(pending=3, failed=0, oldest_seconds=10.0)


async def test_unfinished_are_those_that_wait_and_were_not_given_up(world: World) -> None:
    await world.put(*map(doc, ["done", "leased", "waiting", "failed"]))
    claimed = {one.job.document_id: one for one in await world.claim()}
    await world.store(encoded(claimed[DocumentId("done")]))
    await world.queue.record_failure([claimed[DocumentId("failed")].job], "poison", 1, NOW, NOW)
    await world.queue.release([claimed[DocumentId("waiting")].job], NOW)
    asked = [DocumentId(name) for name in ("waiting", "done", "missing", "failed", "leased")]
    assert await world.queue.unfinished(world.collection.id, world.version.number, asked) == ("waiting", "leased")
    assert await world.queue.dead_lettered(world.collection.id, world.version.number, asked) == ("failed",)
