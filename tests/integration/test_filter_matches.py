"""What is remembered of a filter is exact at every moment, and what a sample tells is never taken for more."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from service.core.filters import parse
from service.core.ids import DocumentId
from service.store.postgres.connection.pool import Pool
from service.store.postgres.filters import filter_matches
from service.store.postgres.filters.filter_matches import FilterMatches
from service.store.postgres.filters.filter_sql import Predicate, predicate
from service.store.postgres.maintenance import purge_tombstones
from tests.world import NOW, World, build, doc, later

pytestmark = pytest.mark.database

ONE = parse({"x": 1})


@pytest.fixture
async def world(pool: Pool) -> World:
    return await build(pool)


def filter_matches_of(world: World) -> FilterMatches:
    return FilterMatches(world.database)


async def named(asked: FilterMatches, world: World, cap: int = 100) -> list[str] | None:
    ids = (await asked.find(world.collection.id, ONE, cap)).ids
    return None if ids is None else sorted(ids)


async def statements(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the statements that are run from now on."""
    run: list[str] = []
    plain = psycopg.AsyncConnection.execute

    async def execute(self, query, *arguments, **options):  # type: ignore[no-untyped-def]
        text = query if isinstance(query, str) else query.as_string(self)
        run.append(text[3:].split(" */", 1)[0])
        return await plain(self, query, *arguments, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", execute)
    return run


async def test_a_filter_that_comes_again_asks_only_what_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.put(*(doc(f"d{number}", x=number % 2) for number in range(6)))
    asked = filter_matches_of(world)
    assert await named(asked, world) == ["d1", "d3", "d5"]
    run = await statements(world, monkeypatch)
    await world.put(doc("d0", x=1), doc("d1", x=0), doc("new", x=1), now=later(1))
    await world.delete("d3", now=later(1))
    run.clear()
    assert await named(asked, world) == ["d0", "d5", "new"]
    assert await named(asked, world) == ["d0", "d5", "new"]
    asked_twice = ["filter_matches.totals", "filter_matches.changed"] * 2
    assert [one for one in run if one.startswith("filter_matches.")] == asked_twice


async def test_a_write_that_commits_late_is_not_missed(world: World) -> None:
    """It has the lower transaction id of the two, and was not to be seen when the filter was asked."""
    await world.put(doc("a", x=0), doc("b", x=0))
    asked = filter_matches_of(world)
    async with world.database.connection() as connection:
        async with connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            late = "UPDATE documents SET metadata = '{\"x\": 1}' WHERE document_id = 'a'"
            await connection.execute(late)
            await connection.execute("UPDATE changes SET xid = pg_current_xact_id() WHERE document_id = 'a'")
            await world.put(doc("b", x=1), now=later(1))
            assert await named(asked, world) == ["b"]
        assert await named(asked, world) == ["a", "b"]


async def test_after_too_many_changes_all_are_named_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_matches, "MAX_CHANGED", 3)
    await world.put(*(doc(f"d{number}", x=1) for number in range(6)))
    asked = filter_matches_of(world)
    assert len(await named(asked, world) or ()) == 6
    await world.put(*(doc(f"d{number}", x=0) for number in range(5)), now=later(1))
    run = await statements(world, monkeypatch)
    assert await named(asked, world) == ["d5"]
    assert "filter_matches.by_metadata" in run


async def test_what_was_forgotten_of_deleted_documents_is_noticed(world: World) -> None:
    """Their rows in the change feed go with their tombstones."""
    await world.put(doc("a", x=1), doc("b", x=1))
    asked = filter_matches_of(world)
    assert await named(asked, world) == ["a", "b"]
    await world.delete("a", now=later(1))
    await world.put(doc("c", x=0), now=later(2))  # the latest change of a collection is never purged
    assert await purge_tombstones(world.database, NOW + timedelta(days=1)) == 1
    assert await named(asked, world) == ["b"]


async def test_a_deleted_collection_has_nothing_that_passes(world: World) -> None:
    await world.put(doc("a", x=1))
    asked = filter_matches_of(world)
    assert await named(asked, world) == ["a"]
    await world.collections.delete(world.collection.id)
    assert await named(asked, world) == []


async def test_filters_that_python_takes_for_equal_are_told_apart(world: World) -> None:
    await world.put(doc("number", x=1), doc("boolean", x=True))
    asked = filter_matches_of(world)
    assert (await asked.find(world.collection.id, parse({"x": 1}), 10)).ids == ("number",)
    assert (await asked.find(world.collection.id, parse({"x": True}), 10)).ids == ("boolean",)


async def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_matches, "CACHED_IDS", 10)
    await world.put(*(doc(f"d{number}", x=number) for number in range(6)))
    asked = filter_matches_of(world)
    for bound in range(6):
        where = parse({"x": {"$lte": bound}})
        assert len((await asked.find(world.collection.id, where, 10)).ids or ()) == bound + 1
    assert sum(1 + len(one.ids) for one in asked._cache.values()) <= 10
    assert len((await asked.find(world.collection.id, parse({"x": {"$lte": 0}}), 10)).ids or ()) == 1


async def test_of_many_documents_a_sample_tells_the_share(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_matches, "COUNTED_DOCUMENTS", 100)
    monkeypatch.setattr(filter_matches, "SAMPLED_DOCUMENTS", 10_000)
    await world.put(*(doc(f"d{number}", x=number % 2) for number in range(400)))
    await world.database.execute("ANALYZE documents")
    asked = filter_matches_of(world)
    many = await asked.find(world.collection.id, ONE, 20)
    assert (many.ids, many.count, many.total) == (None, 200, 400)
    run = await statements(world, monkeypatch)
    assert await asked.find(world.collection.id, ONE, 20) == many
    assert run == []
    # Who needs all of them gets them, and then they are known.
    assert len(await named(asked, world, 1_000) or ()) == 200
    assert (await asked.find(world.collection.id, ONE, 20)).count == 200


async def test_more_than_are_worth_it_are_not_named_again_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.put(*(doc(f"d{number}", x=1) for number in range(10)))
    asked = filter_matches_of(world)
    assert (await asked.find(world.collection.id, ONE, 5)).ids is None
    run = await statements(world, monkeypatch)
    assert (await asked.find(world.collection.id, ONE, 5)).ids is None
    assert run == ["filter_matches.totals"]
    assert len(await named(asked, world, 10) or ()) == 10


async def test_many_at_once_agree(world: World) -> None:
    asked = filter_matches_of(world)

    async def write() -> None:
        for number in range(20):
            await world.put(doc(f"d{number}", x=1), now=later(number))

    async def read() -> None:
        for _ in range(20):
            there = {one.id for one in await world.documents.page(world.collection.id, None, 100, ONE)}
            assert there <= set(await named(asked, world) or ())

    await asyncio.gather(write(), read(), read())
    assert await named(asked, world) == sorted(DocumentId(f"d{number}") for number in range(20))


async def test_what_takes_too_long_to_list_counts_as_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not tried again for a while, also with more time."""
    await world.put(*(doc(f"d{number}", x=number) for number in range(6)))
    slow = Predicate(sql.SQL("pg_sleep(60) IS NOT NULL"), {})
    monkeypatch.setattr(filter_matches, "indexed_predicate", lambda where: slow)
    asked = filter_matches_of(world)
    found = await asked.find(world.collection.id, ONE, 3, seconds=0.2)
    assert (found.ids, found.count, found.total) == (None, 4, 6)
    run = await statements(world, monkeypatch)
    assert await asked.find(world.collection.id, ONE, 100) == replace(found, count=101, total=101)
    assert run == ["filter_matches.totals"]
    monkeypatch.undo()
    assert await named(filter_matches_of(world), world) == ["d1"]


async def test_a_chain_of_conditions_on_one_field_is_one_lookup(world: World) -> None:
    """It is the same filter as the list of its values."""
    await world.put(*(doc(f"d{number}", x=number) for number in range(6)))
    chain = parse({"$and": [{"x": {"$nin": [number]}} for number in range(1, 6)]})
    asked = filter_matches_of(world)
    assert (await asked.find(world.collection.id, chain, 10)).ids == ("d0",)
    assert (await asked.find(world.collection.id, parse({"x": {"$nin": [1, 2, 3, 4, 5]}}), 10)).ids == ("d0",)
    assert len(asked._cache) == 1
    assert predicate(chain).lookups == 1
