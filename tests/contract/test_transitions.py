"""The contract of the port `Versions` for state changes, for the fake and for PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.core.collections import ChunkingSettings, EmbedderSpec, IndexSettings
from service.core.errors import CollectionNotFound, Conflict, NotFound, Overtaken, VersionNotFound
from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.versions import (
    Action,
    AuditEntry,
    EmbedderIdentity,
    EmbedderVersion,
    PromotionCheck,
    PromotionEvidence,
    SpaceStatus,
    VersionState,
)
from service.store.postgres.versions.version_transitions import MAX_WRITTEN
from tests.fakes import versions as fake_versions
from tests.second_version import drain
from tests.world import NOW, World, doc, later

SPEC = EmbedderSpec(model="another/model", dimensions=4)
CHUNKING = ChunkingSettings(max_tokens=64, overlap_tokens=4)
INDEX = IndexSettings(m=8, ef_construction=32, storage="vector")
IDENTITY = EmbedderIdentity(parts={"weights": "other"}, dimensions=4, max_tokens=64)
CANARY = {"a text": (1.0, 0.0, 0.0, 0.25)}
EVIDENCE = PromotionEvidence(
    checks=(
        PromotionCheck(
            name="recall", passed=True, detail="0.97 of 0.95", figures={"recall": 0.97, "interval": [0.95, 0.99]}
        ),
        PromotionCheck(name="shadow", passed=None, detail="nobody searched"),
    ),
    gathered_at=later(5),
    judged_at=later(1),
)


def entry(action: Action, at: datetime = NOW, **values: Any) -> AuditEntry:
    return AuditEntry(at=at, actor="key 12345678", action=action, **values)


async def register(world: World, at: datetime = NOW) -> EmbedderVersion:
    return await world.versions.register(
        world.collection, SPEC, CHUNKING, INDEX, IDENTITY, CANARY, entry("registered", at)
    )


async def audited(world: World) -> list[tuple[Action, VersionNumber | None]]:
    """What the audit says since the collection was created, oldest first."""
    entries = await world.audit.page(world.collection.id, None, 100)
    return [(one.action, one.version) for one in reversed(entries)][1:]


async def pending(world: World, version: EmbedderVersion, *names: str) -> tuple[DocumentId, ...]:
    return await world.queue.unfinished(world.collection.id, version.number, [DocumentId(name) for name in names])


async def state(world: World, number: int) -> VersionState:
    return (await world.versions.get(world.collection.id, VersionNumber(number))).state


async def test_a_registered_version_is_read_back_as_it_was_given(world: World) -> None:
    made = await register(world, later(7))
    assert made == EmbedderVersion(
        collection_id=world.collection.id,
        number=VersionNumber(2),
        state=VersionState.BACKFILLING,
        spec=SPEC,
        chunking=CHUNKING,
        identity=IDENTITY,
        fingerprint=IDENTITY.fingerprint,
        canary=CANARY,
        index=INDEX,
        created_at=later(7),
    )
    assert await world.versions.get(world.collection.id, made.number) == made
    assert await world.versions.of(world.collection.id) == (world.version, made)
    assert await world.versions.written() == (world.version, made)
    assert await world.versions.status(made) == SpaceStatus(rows=0, indexed=False, chunks_per_document=1.0)
    (told, _) = await world.audit.page(world.collection.id, None, 10)
    assert told == replace(entry("registered", later(7), version=made.number), number=told.number)


async def test_a_version_that_is_not_there_is_not_found(world: World) -> None:
    for unknown in (world.collection.id, CollectionId(world.collection.id + 1)):
        with pytest.raises(VersionNotFound):
            await world.versions.get(unknown, VersionNumber(2))


async def test_what_is_written_from_then_on_goes_to_it_too(world: World) -> None:
    await world.put(doc("before"))
    version = await register(world)
    await world.put(doc("after"))
    assert await pending(world, version, "before", "after") == ("after",)


async def test_numbers_are_never_used_again(world: World) -> None:
    second = await register(world)
    await world.versions.retire(second, entry("retired"))
    assert (await register(world)).number == 3
    assert [one.number for one in await world.versions.of(world.collection.id)] == [1, 2, 3]


async def test_whoever_knows_of_fewer_versions_is_overtaken(world: World) -> None:
    arguments = (world.collection, SPEC, CHUNKING, INDEX, IDENTITY, CANARY, entry("registered"))
    first = world.version.number
    second = await world.versions.register(*arguments, newest=first)
    with pytest.raises(Overtaken):
        await world.versions.register(*arguments, newest=first)
    await world.versions.register(*arguments, newest=second.number)
    assert [one.number for one in await world.versions.of(world.collection.id)] == [1, 2, 3]


async def test_there_is_room_for_so_many_written_versions(world: World) -> None:
    assert fake_versions.MAX_WRITTEN == MAX_WRITTEN
    second, *_ = [await register(world) for _ in range(MAX_WRITTEN - 1)]
    with pytest.raises(Conflict):
        await register(world)
    failed = await world.versions.move(second, VersionState.FAILED, entry("failed"))
    await register(world)
    with pytest.raises(Conflict):
        await world.versions.move(failed, VersionState.BACKFILLING, entry("resumed"))
    assert len(await world.versions.written()) == MAX_WRITTEN


async def test_nothing_is_registered_in_a_collection_that_is_gone(world: World) -> None:
    await world.collections.delete(world.collection.id)
    with pytest.raises(CollectionNotFound):
        await register(world)


async def test_a_version_moves_and_says_so(world: World) -> None:
    version = await register(world)
    indexing = await world.versions.move(version, VersionState.INDEXING, entry("indexing", version=version.number))
    assert indexing == replace(version, state=VersionState.INDEXING)
    verifying = await world.versions.move(indexing, VersionState.VERIFYING, entry("verifying", version=version.number))
    ready = await world.versions.move(
        verifying, VersionState.READY, entry("ready", version=version.number), evidence=EVIDENCE
    )
    assert ready == replace(version, state=VersionState.READY, evidence=EVIDENCE)
    assert await world.versions.get(world.collection.id, version.number) == ready
    assert await audited(world) == [("registered", 2), ("indexing", 2), ("verifying", 2), ("ready", 2)]


async def test_new_evidence_replaces_the_old_and_writes_no_audit_entry(world: World) -> None:
    version = await world.add_version(2, VersionState.READY)
    first = await world.versions.move(version, VersionState.READY, None, evidence=EVIDENCE)
    newer = replace(EVIDENCE, gathered_at=later(60), judged_at=None)
    assert (await world.versions.move(first, VersionState.READY, None, evidence=newer)).evidence == newer
    kept = await world.versions.move(first, VersionState.VERIFYING, None)
    assert kept.evidence == newer
    assert await audited(world) == []


async def test_an_active_version_takes_evidence_and_cannot_be_moved(world: World) -> None:
    assert (await world.versions.move(world.version, VersionState.ACTIVE, None, evidence=EVIDENCE)).evidence == EVIDENCE
    second = await world.add_version(2, VersionState.READY)
    for version, to in (
        (world.version, VersionState.FAILED),
        (world.version, VersionState.READY),
        (second, VersionState.ACTIVE),
        (second, VersionState.RETIRED),
    ):
        with pytest.raises(Conflict):
            await world.versions.move(version, to, entry("failed"))
    assert [one.state for one in await world.versions.of(world.collection.id)] == ["active", "ready"]


async def test_of_two_that_move_it_from_the_same_state_one_wins(world: World) -> None:
    version = await world.add_version(2, VersionState.BACKFILLING)
    outcomes = await asyncio.gather(
        world.versions.move(version, VersionState.INDEXING, entry("indexing")),
        world.versions.move(version, VersionState.FAILED, entry("failed"), reason="why"),
        return_exceptions=True,
    )
    won, lost = sorted(outcomes, key=lambda outcome: isinstance(outcome, Exception))
    assert isinstance(lost, Conflict)
    assert await world.versions.get(world.collection.id, version.number) == won
    assert len(await audited(world)) == 1


async def test_a_failed_version_keeps_its_reason_and_is_not_written(world: World) -> None:
    version = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("a"))
    failed = await world.versions.move(version, VersionState.FAILED, entry("failed"), reason="another model")
    assert failed == replace(version, state=VersionState.FAILED, reason="another model")
    await world.put(doc("b"))
    assert await pending(world, version, "a", "b") == ()
    assert await pending(world, world.version, "a", "b") == ("a", "b")
    again = await world.versions.move(failed, VersionState.BACKFILLING, entry("resumed"))
    assert again == version
    await world.put(doc("c"))
    assert await pending(world, version, "a", "b", "c") == ("c",)


async def test_what_is_gone_cannot_be_moved_paused_promoted_or_retired(world: World) -> None:
    version = await world.add_version(2, VersionState.BACKFILLING)
    unknown = replace(version, number=VersionNumber(3))

    async def check(one: EmbedderVersion) -> None:
        with pytest.raises(VersionNotFound):
            await world.versions.move(one, VersionState.INDEXING, entry("indexing"))
        with pytest.raises(VersionNotFound):
            await world.versions.pause(one, True, entry("paused"))
        with pytest.raises(NotFound):
            await world.versions.promote(world.collection, one, entry("promoted"))
        with pytest.raises(VersionNotFound):
            await world.versions.retire(one, entry("retired"))

    await check(unknown)
    await world.collections.delete(world.collection.id)
    await check(version)


async def test_a_backfill_pauses_and_resumes_and_is_audited_once(world: World) -> None:
    version = await register(world)
    for paused in (True, True, False, False, True):
        seen = await world.versions.pause(version, paused, entry("paused" if paused else "resumed"))
        assert seen == replace(version, paused=paused)
    assert [action for action, _ in await audited(world)] == ["registered", "paused", "resumed", "paused"]
    assert not (await world.versions.move(version, VersionState.INDEXING, None)).paused
    with pytest.raises(Conflict):
        await world.versions.pause(version, True, entry("paused"))


async def test_one_at_a_time_holds_the_lock_of_a_version(world: World) -> None:
    other = await world.add_version(2, VersionState.BACKFILLING)
    async with world.versions.transition_lock(world.version) as first:
        assert first
        async with (
            world.versions.transition_lock(world.version) as second,
            world.versions.transition_lock(other) as elsewhere,
        ):
            assert not second
            assert elsewhere
        async with world.versions.transition_lock(world.version, wait_seconds=0.05) as late:
            assert not late
    async with world.versions.transition_lock(world.version) as again:
        assert again


async def test_who_waits_gets_the_lock_when_the_other_is_done(world: World) -> None:
    async def wait() -> bool:
        async with world.versions.transition_lock(world.version, wait_seconds=10) as ours:
            return ours

    async with world.versions.transition_lock(world.version) as first:
        assert first
        waiting = asyncio.create_task(wait())
        async with world.versions.transition_lock(world.version, wait_seconds=0.1) as late:
            assert not late
        assert not waiting.done()
    assert await waiting


async def test_an_error_under_the_lock_is_raised_and_leaves_nothing_locked(world: World) -> None:
    with pytest.raises(Conflict, match="mine"):
        async with world.versions.transition_lock(world.version):
            raise Conflict("mine")
    async with world.versions.transition_lock(world.version) as again:
        assert again


async def test_a_promotion_changes_versions_settings_and_the_way_back(world: World) -> None:
    other = await world.versions.move(await register(world), VersionState.READY, None)
    first = world.version.number
    promoted = await world.versions.promote(
        world.collection, other, entry("promoted", version=other.number, before=first)
    )
    settings = replace(world.collection.settings, embedder=SPEC, chunking=CHUNKING)
    assert promoted == replace(world.collection, settings=settings, active_version=other.number, previous_version=first)
    assert await world.collections.by_name(world.collection.name) == promoted
    assert [one.state for one in await world.versions.of(world.collection.id)] == ["ready", "active"]
    assert await audited(world) == [("registered", 2), ("promoted", 2)]
    back = await world.versions.promote(promoted, world.version, entry("rolled_back", version=world.version.number))
    assert back == replace(world.collection, previous_version=other.number)
    assert [one.state for one in await world.versions.of(world.collection.id)] == ["active", "ready"]


async def test_of_two_promotions_at_once_one_wins(world: World) -> None:
    others = [await world.add_version(number, VersionState.READY) for number in (2, 3)]
    outcomes = await asyncio.gather(
        *(world.versions.promote(world.collection, one, entry("promoted", version=one.number)) for one in others),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Collection", "Conflict"]
    active = (await world.collections.by_name(world.collection.name)).active_version
    states = {one.number: one.state for one in await world.versions.of(world.collection.id)}
    assert states == {1: "ready", 2: "ready", 3: "ready", active: "active"}
    assert await audited(world) == [("promoted", active)]


@pytest.mark.parametrize("unready", [VersionState.BACKFILLING, VersionState.FAILED, VersionState.RETIRED])
async def test_only_what_is_ready_is_promoted_and_nothing_changes_otherwise(
    world: World, unready: VersionState
) -> None:
    version = await world.add_version(2, unready)
    with pytest.raises(Conflict):
        await world.versions.promote(world.collection, replace(version, state=VersionState.READY), entry("promoted"))
    with pytest.raises(Conflict):
        await world.versions.promote(world.collection, world.version, entry("promoted"))
    assert await world.collections.by_name(world.collection.name) == world.collection
    assert [await state(world, number) for number in (1, 2)] == [VersionState.ACTIVE, unready]
    assert await audited(world) == []


async def test_jobs_of_the_promoted_version_come_first_from_then_on(world: World) -> None:
    other = await world.add_version(2, VersionState.READY)
    await world.put(doc("a"), doc("b"))
    both = [world.version, other]

    async def order() -> list[int]:
        claimed = await world.queue.claim(both, 10, "w1", NOW, later(60) - NOW)
        await world.queue.release([one.job for one in claimed], NOW)
        return [one.job.version for one in claimed]

    assert await order() == [1, 1, 2, 2]
    promoted = await world.versions.promote(world.collection, other, entry("promoted"))
    assert await order() == [2, 2, 1, 1]
    await world.versions.promote(promoted, world.version, entry("rolled_back"))
    assert await order() == [1, 1, 2, 2]


async def test_settings_and_promotions_see_each_other(world: World) -> None:
    other = await world.versions.move(await register(world), VersionState.READY, None)
    changed = await world.collections.update(
        world.collection, replace(world.collection.settings, recall_target=0.9), entry("settings")
    )
    # The promoter read the collection before that.
    promoted = await world.versions.promote(world.collection, other, entry("promoted"))
    assert promoted.settings == replace(changed.settings, embedder=SPEC, chunking=CHUNKING)
    with pytest.raises(Conflict):
        await world.collections.update(changed, replace(changed.settings, recall_target=0.8), entry("settings"))
    assert await world.collections.by_name(world.collection.name) == promoted


async def test_a_retired_version_leaves_its_row_and_nothing_else(world: World) -> None:
    version = await register(world)
    await world.put(doc("a"), doc("b"))
    await drain(world, version)
    await world.put(doc("b", "changed"))
    assert set(await world.stored_chunks(version)) == {("a", 0), ("b", 0)}
    retired = await world.versions.retire(version, entry("retired", version=version.number))
    assert retired == replace(version, state=VersionState.RETIRED)
    assert await world.versions.get(world.collection.id, version.number) == retired
    assert await pending(world, version, "a", "b") == ()
    assert await pending(world, world.version, "a", "b") == ("a", "b")
    for asked in (
        world.versions.status(retired),
        world.versions.build_index(retired),
        world.vectors.get(retired, [(DocumentId("a"), 0)]),
    ):
        with pytest.raises(VersionNotFound):
            await asked
    assert await world.versions.retire(version, entry("retired", version=version.number)) == retired
    assert await audited(world) == [("registered", 2), ("retired", 2)]
    # Life goes on without it.
    await world.put(doc("c"))
    await world.delete("a")
    await world.drain()
    assert set(await world.stored_chunks()) == {("b", 0), ("c", 0)}


@pytest.mark.parametrize("before", [one for one in VersionState if one not in ("active", "retired")])
async def test_a_version_can_be_retired_from_every_state_but_active(world: World, before: VersionState) -> None:
    version = await world.add_version(2, before)
    assert (await world.versions.retire(version, entry("retired"))).state is VersionState.RETIRED
    assert await world.versions.written() == (world.version,)


async def test_the_active_version_is_not_retired(world: World) -> None:
    with pytest.raises(Conflict):
        await world.versions.retire(world.version, entry("retired"))
    # Nor is one that became active since it was looked at.
    second = await world.add_version(2, VersionState.READY)
    await world.versions.promote(world.collection, second, entry("promoted"))
    with pytest.raises(Conflict):
        await world.versions.retire(second, entry("retired"))
    assert await state(world, 2) is VersionState.ACTIVE


async def test_there_is_no_way_back_to_a_retired_version(world: World) -> None:
    second = await world.add_version(2, VersionState.READY)
    third = await world.add_version(3, VersionState.READY)
    promoted = await world.versions.promote(world.collection, second, entry("promoted"))
    assert promoted.previous_version == 1
    await world.versions.retire(third, entry("retired"))
    assert (await world.collections.get(world.collection.id)).previous_version == 1
    await world.versions.retire(world.version, entry("retired"))
    assert (await world.collections.get(world.collection.id)).previous_version is None
