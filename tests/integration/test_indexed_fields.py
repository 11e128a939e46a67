"""Declared fields beside writes: nothing is lost, whatever is declared, dropped or broken off meanwhile."""

import asyncio
import dataclasses
import random
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from service.core import filters
from service.core.collections import DeclaredField, FieldState
from service.core.errors import Invalid
from service.core.ids import CollectionName, DocumentId
from service.store.postgres.connection.pool import Pool
from service.store.postgres.documents import PostgresDocuments
from service.store.postgres.filters.indexed_fields import KEPT, IndexedFields
from tests.world import NOW, World, build, doc, later

pytestmark = pytest.mark.database

AFTER = NOW + KEPT + timedelta(seconds=1)


@pytest.fixture
async def world(pool: Pool) -> World:
    return await build(pool)


async def declare(world: World, *names: str, **types: Any) -> None:
    before = await world.collections.get(world.collection.id)
    typed = [DeclaredField(field=name, type=kind) for name, kind in types.items()]
    settings = dataclasses.replace(before.settings, indexed=filters.declared([*names, *typed], "indexed"))
    world.collection = await world.collections.update(before, settings)


def fields_of(world: World) -> IndexedFields:
    return IndexedFields(world.database)


async def values(world: World) -> set[tuple[Any, ...]]:
    """Every value as it stands, by the name of its field."""
    query = (
        "SELECT f.name, v.kind, v.number, v.text, v.document_id, v.several FROM indexed_values AS v"
        " JOIN indexed_fields AS f ON f.collection_id = v.collection_id AND f.number = v.field"
    )
    return set(await world.rows(query))


async def states(world: World) -> dict[str, FieldState]:
    return {field.name: field.state for field in await world.collections.fields(world.collection.id)}


async def found(world: World, raw: dict[str, Any]) -> list[str]:
    """What passes, as a process that has just started finds it."""
    where = filters.typed(filters.parse(raw), world.collection.settings.field_types)
    filter_match = await PostgresDocuments(world.database).match_filter(world.collection.id, where, 1_000)
    assert filter_match.ids is not None
    return sorted(filter_match.ids)


async def test_values_of_every_kind_are_kept(world: World) -> None:
    await declare(world, "a", "b.c")
    await world.put(doc("1", a=1.50), doc("2", a="x" * 100), doc("3", a=[True, None, 2, [9], {"a": 1}]))
    await world.put(doc("4", b=[{"c": 1}, {"c": ["y"]}, {"d": 0}]), doc("5", a=None, b=3))
    told = await values(world)
    assert {(name, kind, float(number), text, id_, several) for name, kind, number, text, id_, several in told} == {
        ("a", 1, 1.5, "", "1", False),
        ("a", 2, 0.0, "x" * 64, "2", False),
        ("a", 0, 1.0, "", "3", True),
        ("a", 1, 2.0, "", "3", True),
        ("b.c", 1, 1.0, "", "4", True),
        ("b.c", 2, 0.0, "y", "4", True),
    }


async def test_a_change_replaces_values_and_a_deletion_removes_them(world: World) -> None:
    await declare(world, "a")
    await fields_of(world).maintain(NOW)
    await world.put(doc("1", a=[1, 2]), doc("2", a=1))
    await world.put(doc("1", a=[2]), now=later(1))
    assert await found(world, {"a": 1}) == ["2"]
    assert {(id_, several) for *_, id_, several in await values(world)} == {("1", False), ("2", False)}
    await world.delete("1", "2")
    assert await values(world) == set()


async def test_what_was_there_before_is_filled_in_portions_that_anyone_may_go_on_with(world: World) -> None:
    await world.put(*(doc(f"d{number}", a=number) for number in range(10)))
    await world.delete("d3")
    await declare(world, "a")
    assert await states(world) == {"a": FieldState.BUILDING}
    assert await fields_of(world).fill(world.collection.id, limit=4)
    assert {id_ for *_, id_, _ in await values(world)} == {"d0", "d1", "d2", "d4"}
    assert await found(world, {"a": {"$gte": 8}}) == ["d8", "d9"]  # not by the field, which is not ready
    await asyncio.gather(*(fields_of(world).maintain(NOW) for _ in range(4)))
    assert await states(world) == {"a": FieldState.READY}
    assert {id_ for *_, id_, _ in await values(world)} == {f"d{number}" for number in range(10) if number != 3}


async def test_a_new_collection_has_nothing_to_fill(world: World) -> None:
    settings = dataclasses.replace(world.collection.settings, indexed=("a",))
    name, canary = CollectionName("other"), {"text": (1.0,) * world.version.dimensions}
    created = await world.collections.create(name, settings, world.version.identity, canary, NOW)
    assert [field.state for field in await world.collections.fields(created.id)] == [FieldState.READY]


async def test_a_dropped_field_is_kept_until_no_process_believes_in_it(world: World) -> None:
    await declare(world, "a", "b")
    await world.put(doc("1", a=1, b=1))
    await fields_of(world).maintain(NOW)
    believing = PostgresDocuments(world.database)
    assert (await believing.match_filter(world.collection.id, filters.parse({"a": 1}), 10)).ids == ("1",)
    await declare(world, "b")
    assert await states(world) == {"b": FieldState.READY}
    await world.put(doc("2", a=1, b=2), now=later(1))
    await fields_of(world).maintain(NOW)
    two = await believing.match_filter(world.collection.id, filters.parse({"a": {"$lt": 2}}), 10)
    assert set(two.ids or ()) == {"1", "2"}
    # The settings were changed at the time of this machine, not of the tests.
    await world.rows(f"UPDATE indexed_fields SET dropped_at = '{NOW}' WHERE state = 'dropped' RETURNING number")
    await fields_of(world).maintain(AFTER)
    assert {name for name, *_ in await values(world)} == {"b"}
    assert await world.rows("SELECT name, state FROM indexed_fields") == [("b", "ready")]


async def test_declared_again_a_field_begins_anew(world: World) -> None:
    await declare(world, "a")
    await world.put(doc("1", a=1))
    await declare(world)
    await declare(world, "a")
    assert await states(world) == {"a": FieldState.BUILDING}
    await fields_of(world).maintain(NOW)
    assert await states(world) == {"a": FieldState.READY}
    assert await found(world, {"a": 1}) == ["1"]


async def test_a_deleted_collection_leaves_nothing(world: World) -> None:
    await declare(world, "a")
    await world.put(doc("1", a=1))
    await world.collections.delete(world.collection.id)
    counts = "SELECT count(*) FROM indexed_values UNION ALL SELECT count(*) FROM indexed_fields"
    assert await world.rows(counts) == [(0,), (0,)]


async def test_nothing_is_lost_while_fields_are_declared_beside_writes(world: World) -> None:
    """Writers never pause; fields come and go, and are filled by several at once in small portions."""
    chance = random.Random(7)
    ids = [f"d{number}" for number in range(40)]
    await world.put(*(doc(name, a=number, b=[number, str(number)]) for number, name in enumerate(ids)))
    done = asyncio.Event()
    writes = 0

    async def write(number: int) -> None:
        nonlocal writes
        own = random.Random(number)
        while not done.is_set():
            some = sorted(own.sample(ids, 5))
            if own.random() < 0.2:
                await world.delete(*some, now=later(writes))
            else:
                await world.put(*(doc(name, a=own.randint(0, 9), b=[own.random()]) for name in some), now=later(writes))
            writes += 1

    async def fill() -> None:
        while not done.is_set():
            while await fields_of(world).fill(world.collection.id, limit=3):
                pass
            await asyncio.sleep(0)

    async def change() -> None:
        for _ in range(12):
            await declare(world, *chance.sample(["a", "b", "c"], chance.randint(0, 3)))
            seen = writes
            while writes < seen + 5:
                await asyncio.sleep(0.001)
        await declare(world, "a", "b")
        done.set()

    await asyncio.gather(*(write(number) for number in range(3)), fill(), fill(), change())
    await fields_of(world).maintain(NOW)
    assert await states(world) == {"a": FieldState.READY, "b": FieldState.READY}
    await agrees(world, ids)


async def agrees(world: World, ids: Sequence[str]) -> None:
    """The values are those of the metadata, no more and no less, and filters find what they should."""
    there = await world.documents.get(world.collection.id, [DocumentId(name) for name in ids])
    numbers = {("a", float(one.metadata["a"]), id_) for id_, one in there.items()}
    for id_, one in there.items():
        numbers |= {("b", float(value), id_) for value in one.metadata["b"] if not isinstance(value, str)}
    query = (
        "SELECT f.name, v.number, v.document_id FROM indexed_values AS v"
        " JOIN indexed_fields AS f ON f.collection_id = v.collection_id AND f.number = v.field AND f.state = 'ready'"
        " WHERE v.kind = 1"
    )
    assert {(name, float(number), id_) for name, number, id_ in await world.rows(query)} == numbers
    for raw in ({"a": 3}, {"a": {"$gte": 4}}, {"a": {"$gt": 2, "$lt": 7}}, {"b": {"$lt": 0.5}}):
        right = sorted(id_ for id_, one in there.items() if filters.matches(filters.parse(raw), one.metadata, one.id))
        assert await found(world, raw) == right


async def test_instants_are_found_by_their_index_and_kept(world: World) -> None:
    await declare(world, at="datetime")
    await fields_of(world).maintain(NOW)
    await world.put(
        doc("1", at="2024-05-01T12:00:00+02:00"), doc("2", at=["2024-05-01", "2024-05-02t00:00z"]), doc("3")
    )
    await world.put(doc("4", at=None), doc("5", at="2024-05-01 10:00:00.5"))
    told = {(kind, float(number), text, id_, several) for _, kind, number, text, id_, several in await values(world)}
    assert told == {
        (3, 1714557600.0, "", "1", False),
        (3, 1714521600.0, "", "2", True),
        (3, 1714608000.0, "", "2", True),
        (3, 1714557600.5, "", "5", False),
    }
    for raw, right in (
        ("2024-05-01T10:00Z", ["1"]),
        ({"$gte": "2024-05-01T10:00Z", "$lt": "2024-05-02"}, ["1", "2", "5"]),
        ({"$in": ["2024-05-02", "2024-05-01T05:00:00.500-05:00"]}, ["2", "5"]),
        ({"$ne": "2024-05-01"}, ["1", "3", "4", "5"]),
        (None, ["3", "4"]),
    ):
        assert await found(world, {"at": raw}) == right


async def test_the_index_of_instants_agrees_with_the_reference(world: World) -> None:
    """Alone, with another field, in arrays, at literal and nested keys; by the index wherever it serves."""
    chance = random.Random(11)

    def moment() -> str:
        day, offset = chance.randint(1, 3), chance.choice(["", "Z", "z", "+02:00", "-0330", " +14"])
        time = chance.choice(["T00:00", " 10:00:00", "t22:30:00.5", "T23:59:60"])
        return f"2024-05-0{day}" + chance.choice(["", time + offset])

    def metadata(number: int) -> dict[str, Any]:
        value: Any = [moment(), moment()] if chance.random() < 0.2 else chance.choice([moment(), None])
        at = chance.choice([{"a.at": value}, {"a": {"at": value}}, {"a": [{"at": moment()}, {"at": value}]}, {}])
        return {**at, "n": number % 3}

    await declare(world, "n", **{"a.at": "datetime"})
    await fields_of(world).maintain(NOW)
    documents = [doc(f"d{number}", **metadata(number)) for number in range(80)]
    await world.put(*documents)
    for _ in range(60):
        low, high = moment(), moment()
        test = chance.choice(
            [low, {"$gte": low, "$lt": high}, {"$in": [low, high]}, {"$ne": low}, {"$not": {"$gt": low}}]
        )
        raw: dict[str, Any] = {"a.at": test, **chance.choice([{}, {"n": 1}, {"n": {"$gt": 0}}])}
        where = filters.typed(filters.parse(raw), world.collection.settings.field_types)
        assert await found(world, raw) == sorted(
            one.id for one in documents if filters.matches(where, one.metadata, one.id)
        )


async def test_a_literal_key_with_dots_has_an_index_too(world: World) -> None:
    await declare(world, "source.url")
    await fields_of(world).maintain(NOW)
    await world.put(doc("1", **{"source.url": "a"}), doc("2", source={"url": "a"}), doc("3", source=[{"url": "b"}]))
    assert await found(world, {"source.url": "a"}) == ["1", "2"]
    assert await found(world, {"source.url": {"$gt": "a"}}) == ["3"]


async def test_a_type_is_refused_while_documents_have_other_values(world: World) -> None:
    await world.put(doc("1", at="2024-05-01"), doc("2", at="soon"), doc("3", at=[None, 5]), doc("4", at={"$date": 1}))
    await world.put(*(doc(f"5{number}", at="x") for number in range(5)))
    for kind, ids in (("datetime", ["2", "3", "4"]), ("string", ["3", "4"]), ("number", ["1", "2", "4"])):
        with pytest.raises(Invalid) as refused:
            await declare(world, at=kind)
        assert re.findall(r"document (\w+):", str(refused.value)) == ids
    assert await states(world) == {}
    await world.delete("2", "3", "4", *(f"5{number}" for number in range(5)))
    await declare(world, at="datetime")
    assert await found(world, {"at": {"$gte": "2024-04-30T22:00-02:00"}}) == ["1"]
    await fields_of(world).maintain(NOW)
    assert await found(world, {"at": {"$gte": "2024-04-30T22:00-02:00"}}) == ["1"]
    await declare(world, "at")  # texts again
    await fields_of(world).maintain(NOW)
    assert await found(world, {"at": {"$gte": "2024-05-01T02:00+02:00"}}) == []
    assert {(kind, text) for _, kind, _, text, *_ in await values(world)} >= {(2, "2024-05-01")}


async def test_a_write_that_was_validated_before_the_type_was_declared_is_refused(world: World) -> None:
    await declare(world, n="number")
    await world.put(doc("1", n=1))
    with pytest.raises(Invalid, match="document 1: the field is declared as number"):
        await world.put(doc("1", n="1"), doc("2", n=2))
    assert await found(world, {"n": {"$exists": True}}) == ["1"]


async def test_filters_compare_in_nfc_and_documents_come_back_as_sent(world: World) -> None:
    apart, together = {"a cafe\u0301": "e\u0301"}, {"a café": "é"}
    await world.put(doc("1", **apart), doc("2", **together), doc("3", x=1))
    assert await found(world, apart) == await found(world, together) == ["1", "2"]
    assert await found(world, {"a café": {"$ne": "é"}}) == ["3"]
    assert (await world.get("1")).metadata == apart
    for metadata, status in ((apart, "unchanged"), (together, "updated"), (apart, "updated")):
        (again,) = await world.put(doc("1", **metadata), now=later(1))
        assert again.status == status
        assert (await world.get("1")).metadata == metadata
    await world.delete("1")
    await world.put(doc("1", **together), now=later(2))
    assert (await world.get("1")).metadata == together
