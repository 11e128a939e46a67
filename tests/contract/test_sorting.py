"""Documents in the order of declared fields, in memory and in PostgreSQL."""

import dataclasses
import random
from typing import Any

import pytest

from service.core.collections import DeclaredField
from service.core.errors import Conflict, Invalid
from service.core.filters import parse
from service.core.ids import DocumentId
from service.core.result_options import SortKey
from service.store.postgres.filters.indexed_fields import IndexedFields
from tests.world import NOW, World, doc

RANDOM = random.Random(17)
YEARS: list[Any] = [2001, 2002.5, -3, [7, 2001], [], None, True, "2001", "Ärger", "zebra", {"x": 1}, [2002, "a"]]
METADATA: list[dict[str, Any]] = [
    {"group": RANDOM.choice("abc"), "number": RANDOM.randrange(5)}
    | ({} if at % 13 == 0 else {"year": RANDOM.choice(YEARS)})
    for at in range(80)
]


async def declare(world: World, *names: str | DeclaredField) -> None:
    settings = dataclasses.replace(world.collection.settings, indexed=names)
    world.collection = await world.collections.update(world.collection, settings)


@pytest.fixture
async def filled(world: World) -> World:
    await declare(world, "group", "number", "year")
    if world.pool is not None:
        await IndexedFields(world.pool).maintain(NOW)
    await world.put(*(doc(f"d{at:02}", **metadata) for at, metadata in enumerate(METADATA)))
    await world.delete("d07", "d08")
    return world


def key_of(metadata: dict[str, Any], key: SortKey) -> tuple[Any, ...]:
    """Booleans, then numbers, then texts by code point; of several the first in the order; empty: no such value."""
    value = metadata.get(key.field)
    values = value if isinstance(value, list) else [value]
    kinds = {bool: 0, int: 1, float: 1, str: 2}
    found = [(kinds[type(one)], one) for one in values if type(one) in kinds]
    return (max if key.descending else min)(found, default=())


def expected(order: list[SortKey], kept: set[int]) -> list[str]:
    found = sorted(kept)
    for key in reversed(order):
        keys = {at: key_of(METADATA[at], key) for at in found}
        have = [at for at in found if keys[at]]
        found = sorted(have, key=lambda at: keys[at], reverse=key.descending) + [at for at in found if not keys[at]]
    return [f"d{at:02}" for at in found]


@pytest.mark.parametrize(
    "names", [["year"], ["-year"], ["number", "-year"], ["-group", "year", "-number"], ["year", "group"]], ids=str
)
async def test_documents_come_in_the_order_of_fields(filled: World, names: list[str]) -> None:
    order = [SortKey(field=name.lstrip("-"), descending=name.startswith("-")) for name in names]
    living = set(range(80)) - {7, 8}
    where = parse({"group": {"$in": ["a", "b"]}})
    passing = {at for at in living if METADATA[at]["group"] in "ab"}
    some = [DocumentId(f"d{at:02}") for at in range(0, 80, 3)]
    documents, of = filled.documents, filled.collection.id
    found = await documents.in_order(of, order, None, 0, 100)
    assert [one.document_id for one in found] == expected(order, living)
    assert {one.content_revision for one in found} == {1}
    page = await documents.in_order(of, order, where, 5, 40)
    assert [one.document_id for one in page] == expected(order, passing)[5:45]
    within = await documents.in_order(of, order, where, 0, 100, some)
    assert [one.document_id for one in within] == [id_ for id_ in expected(order, passing) if id_ in some]


async def test_metadata_of_some_documents(filled: World) -> None:
    found = await filled.documents.metadata(filled.collection.id, [DocumentId("d01"), DocumentId("d07")])
    assert found == {"d01": METADATA[1]}


@pytest.mark.database
async def test_only_declared_fields_that_are_filled(postgres: World) -> None:
    await postgres.put(doc("a", year=1))
    with pytest.raises(Invalid, match="not declared"):
        await postgres.documents.in_order(postgres.collection.id, [SortKey(field="year")], None, 0, 1)
    await declare(postgres, "year")
    with pytest.raises(Conflict, match="not filled yet"):
        await postgres.documents.in_order(postgres.collection.id, [SortKey(field="year")], None, 0, 1)
