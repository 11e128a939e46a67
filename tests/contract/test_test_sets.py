"""The contract of the port `TestSets`, for the fake and for PostgreSQL."""

from dataclasses import replace

import pytest

from service.core.errors import CollectionNotFound
from service.core.versions import AuditEntry, Judgments
from tests.world import NOW, World, later

JUDGMENTS = Judgments(
    queries={"q1": "does it “work”?", "q2": "ein anderer Text", "q3": ""},
    grades={"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}, "q3": {"d3": 1}},
    uploaded_at=later(10),
)
ENTRY = AuditEntry(at=NOW, actor="somebody", action="judgments", details={"queries": 3})


async def notes(world: World) -> int:
    """How often the test set was noted."""
    return sum(entry.action == "judgments" for entry in await world.audit.page(world.collection.id, None, 100))


async def test_there_is_none_at_first(world: World) -> None:
    assert await world.test_sets.get(world.collection.id) is None
    assert await world.test_sets.uploaded_at(world.collection.id) is None
    await world.test_sets.delete(world.collection.id, ENTRY)
    assert await notes(world) == 0


async def test_a_test_set_is_read_back_as_it_was_given_and_replaced_as_a_whole(world: World) -> None:
    await world.test_sets.put(world.collection.id, JUDGMENTS, ENTRY)
    assert await world.test_sets.get(world.collection.id) == JUDGMENTS
    assert await world.test_sets.uploaded_at(world.collection.id) == later(10)
    newer = replace(JUDGMENTS, queries={"q9": "new"}, grades={"q9": {"d7": 3}}, uploaded_at=later(20))
    await world.test_sets.put(world.collection.id, newer, ENTRY)
    assert await world.test_sets.get(world.collection.id) == newer
    assert await world.test_sets.uploaded_at(world.collection.id) == later(20)
    assert await notes(world) == 2


async def test_a_deleted_test_set_is_gone(world: World) -> None:
    await world.test_sets.put(world.collection.id, JUDGMENTS, ENTRY)
    await world.test_sets.delete(world.collection.id, ENTRY)
    await world.test_sets.delete(world.collection.id, ENTRY)
    assert await world.test_sets.get(world.collection.id) is None
    assert await notes(world) == 2


async def test_it_goes_with_its_collection(world: World) -> None:
    await world.test_sets.put(world.collection.id, JUDGMENTS, ENTRY)
    await world.collections.delete(world.collection.id)
    assert await world.test_sets.get(world.collection.id) is None
    with pytest.raises(CollectionNotFound):
        await world.test_sets.put(world.collection.id, JUDGMENTS, ENTRY)
