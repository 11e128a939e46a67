"""The contract of the port `Versions` for calibrations, for the fake and for PostgreSQL."""

from dataclasses import replace

from service.core.ids import VersionNumber
from service.core.logistic import Logistic
from service.core.versions import AuditEntry, Calibration, EmbedderVersion, VersionState
from tests.world import NOW, World, later

CALIBRATION = Calibration(
    dense=Logistic(weights=(25.5,), bias=-10.0),
    both=Logistic(weights=(20.0, 16.25), bias=-11.5),
    rows=10_084,
    sources={"pseudo-queries": 200, "foreign texts": 320},
    auroc=0.991,
    error=0.021,
    learnt_at=later(10),
    judged_at=later(5),
)


async def found(world: World) -> EmbedderVersion:
    return await world.versions.get(world.collection.id, VersionNumber(1))


async def test_what_was_learnt_is_read_back_however_a_version_is_asked_for(world: World) -> None:
    assert await world.versions.save_calibration(world.version, CALIBRATION)
    assert (await found(world)).calibration == CALIBRATION
    assert [one.calibration for one in await world.versions.of(world.collection.id)] == [CALIBRATION]
    assert [one.calibration for one in await world.versions.in_states([VersionState.ACTIVE])] == [CALIBRATION]


async def test_a_calibration_that_learnt_nothing_keeps_its_reason(world: World) -> None:
    nothing = Calibration(reason="too few documents", rows=3, learnt_at=later(1))
    assert await world.versions.save_calibration(world.version, nothing)
    assert (await found(world)).calibration == nothing


async def test_who_learnt_from_an_older_state_does_not_overwrite_the_newer_one(world: World) -> None:
    assert await world.versions.save_calibration(world.version, CALIBRATION)
    late = replace(CALIBRATION, rows=1, learnt_at=later(20))
    assert not await world.versions.save_calibration(world.version, late)
    assert (await found(world)).calibration == CALIBRATION
    assert await world.versions.save_calibration(await found(world), late)
    assert (await found(world)).calibration == late


async def test_a_version_that_is_gone_learns_nothing(world: World) -> None:
    second = await world.add_version(2, VersionState.READY)
    entry = AuditEntry(at=NOW, actor="somebody", action="retired", version=second.number)
    await world.versions.retire(second, entry)
    assert not await world.versions.save_calibration(second, CALIBRATION)
    await world.collections.delete(world.collection.id)
    assert not await world.versions.save_calibration(world.version, CALIBRATION)


async def test_one_at_a_time_learns_and_nobody_who_drives_is_held_up(world: World) -> None:
    async with world.versions.calibration_lock(world.version) as first:
        assert first
        async with world.versions.calibration_lock(world.version) as second:
            assert not second
        async with world.versions.transition_lock(world.version) as transition_lock:
            assert transition_lock
    async with world.versions.calibration_lock(world.version) as again:
        assert again


async def test_other_changes_leave_it_alone(world: World) -> None:
    assert await world.versions.save_calibration(world.version, CALIBRATION)
    moved = await world.versions.move(await found(world), VersionState.ACTIVE, None)
    assert moved.calibration == CALIBRATION
