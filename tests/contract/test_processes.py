"""The contract of the port `Processes`, for the fake and for PostgreSQL."""

import asyncio
import uuid
from dataclasses import replace

from service.core.ids import CollectionId, VersionNumber
from service.core.versions import ApiProcess
from tests.world import NOW, World, later

ONE, TWO = sorted(str(uuid.uuid4()) for _ in range(2))


def process(id_: str, seconds: float, *proven: tuple[int, int]) -> ApiProcess:
    return ApiProcess(
        id=id_,
        host=f"host-{id_[:4]}",
        seen_at=later(seconds),
        proven=frozenset((CollectionId(collection), VersionNumber(number)) for collection, number in proven),
    )


async def test_processes_are_known_by_their_latest_heartbeat(world: World) -> None:
    assert await world.processes.seen_since(NOW) == ()
    await world.processes.record_heartbeat(process(ONE, 0))
    await world.processes.record_heartbeat(process(TWO, 1, (1, 2), (11, 1)))
    assert await world.processes.seen_since(NOW) == (process(ONE, 0), process(TWO, 1, (1, 2), (11, 1)))
    latest = replace(process(ONE, 4, (1, 2)), host="moved")
    await world.processes.record_heartbeat(latest)
    assert await world.processes.seen_since(later(4)) == (latest,)


async def test_a_process_that_stops_is_gone_at_once(world: World) -> None:
    await world.processes.record_heartbeat(process(ONE, 0))
    await world.processes.record_heartbeat(process(TWO, 0))
    await world.processes.remove(ONE)
    await world.processes.remove(ONE)
    assert [one.id for one in await world.processes.seen_since(NOW)] == [TWO]


async def test_who_is_silent_for_an_hour_is_forgotten(world: World) -> None:
    await world.processes.record_heartbeat(process(ONE, 0))
    await world.processes.record_heartbeat(process(TWO, 3_599))
    assert len(await world.processes.seen_since(NOW)) == 2
    await world.processes.record_heartbeat(process(TWO, 3_601))
    assert [one.id for one in await world.processes.seen_since(NOW)] == [TWO]
    # Itself it finds again, however long it slept.
    await world.processes.record_heartbeat(process(TWO, 99_999))
    assert await world.processes.seen_since(NOW) == (process(TWO, 99_999),)


async def test_many_heartbeats_at_once(world: World) -> None:
    await world.processes.record_heartbeat(process(ONE, -99_999))
    many = [process(str(uuid.uuid4()), 0, (1, 1)) for _ in range(20)]
    await asyncio.gather(*(world.processes.record_heartbeat(one) for one in many))
    assert set(await world.processes.seen_since(later(-999_999))) == set(many)
