"""The contract of the marks of the port `TestSets`, for the fake and for PostgreSQL."""

import pytest

from service.core import versions
from service.core.errors import CollectionNotFound
from service.core.ids import DocumentId
from service.core.versions import Mark, mark_id
from tests.world import World, later


def mark(query: str, tenant: str = "", at: float = 0.0, answered: bool = True, *documents: str) -> Mark:
    helped = tuple(map(DocumentId, documents))
    own = mark_id(tenant, query)
    return Mark(id=own, query=query, answered=answered, documents=helped, actor="ci", tenant=tenant, at=later(at))


async def stored(world: World, tenant: str | None = None) -> set[Mark]:
    return set(await world.test_sets.marks(world.collection.id, tenant, "", 100))


async def put(world: World, *marks: Mark) -> None:
    for one in marks:
        await world.test_sets.put_mark(world.collection.id, one)


async def test_the_newest_mark_of_a_query_counts_for_each_tenant(world: World) -> None:
    newer, theirs = mark("does it “work”?", at=5, answered=False), mark("does it “work”?", "t")
    await put(world, mark("does it “work”?", "", 1, True, "a", "b"), theirs, newer)
    assert await stored(world) == {newer, theirs}
    assert await stored(world, "") == {newer}
    assert [await world.test_sets.count_marks(world.collection.id, one) for one in ("", "t", "other")] == [1, 1, 0]


async def test_pages_are_in_the_order_of_ids(world: World) -> None:
    marks = [mark(str(number), "", 0, True, "d") for number in range(7)]
    await put(world, *marks)
    first = await world.test_sets.marks(world.collection.id, None, "", 4)
    rest = await world.test_sets.marks(world.collection.id, None, first[-1].id, 4)
    assert [*first, *rest] == sorted(marks, key=lambda one: one.id)


async def test_the_oldest_of_a_tenant_give_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MAX_MARKS", 2)
    theirs, kept = mark("old", "t", 0), [mark("b", at=2), mark("c", at=3)]
    await put(world, theirs, mark("a", at=1), *kept)
    assert await stored(world) == {theirs, *kept}


async def test_deletion_keeps_to_a_tenant_a_query_and_an_age(world: World) -> None:
    mine, other, theirs = mark("a", at=1), mark("b", at=9), mark("a", "t", 9)
    await put(world, mine, other, theirs)
    assert await world.test_sets.delete_marks(world.collection.id, "t", mine.id) == 0
    await world.test_sets.delete_marks_before(later(2))
    assert await world.test_sets.delete_marks(world.collection.id, "", None) == 1
    assert await stored(world) == {theirs}
    assert await world.test_sets.delete_marks(world.collection.id, None, theirs.id) == 1


async def test_it_goes_with_its_collection(world: World) -> None:
    await put(world, mark("a"))
    await world.collections.delete(world.collection.id)
    assert await stored(world) == set()
    with pytest.raises(CollectionNotFound):
        await world.test_sets.put_mark(world.collection.id, mark("a"))
