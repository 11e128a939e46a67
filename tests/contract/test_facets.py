"""Facets are exact whatever was written meanwhile, in memory and in PostgreSQL."""

import dataclasses
import random
from typing import Any

import pytest

from service.core.errors import Invalid
from service.core.facets import FacetRequest
from service.core.filters import Filter, matches, parse
from service.store.postgres.documents import PostgresDocuments
from service.store.postgres.facets import facets as postgres_facets
from tests.fakes.documents import facet_of
from tests.world import World, doc

FIELDS = ["kind", "tags", "price", "a.b", "undeclared"]
FILTERS: list[dict[str, Any] | None] = [None, {"kind": "x"}, {"price": {"$gte": 3}}, {"tags": {"$in": ["red", 1]}}]


def made_up(generator: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kind": generator.choice(["x", "y", "Ä", True, 3, 3.0, None]),
        "tags": generator.choices(["red", "blue", 1, 2.5, False, None, {"x": 1}], k=generator.randrange(5)),
        "price": generator.choice([1, 2, 3.5, 4, -7, "free"]),
        "undeclared": generator.randrange(3),
    }
    metadata = {name: value for name, value in values.items() if generator.random() < 0.8}
    return metadata | generator.choice(
        [{"a": {"b": 1}}, {"a.b": 2, "a": {"b": [1, 2]}}, {"a": [{"b": 3}, {"b": 1}]}, {}]
    )


@pytest.fixture
async def declared(world: World) -> World:
    settings = dataclasses.replace(world.collection.settings, indexed=tuple(FIELDS[:-1]))
    world.collection = await world.collections.update(world.collection, settings)
    return world


async def assert_exact(world: World, stored: dict[str, dict[str, Any]], where: Filter | None) -> None:
    requests = [FacetRequest(field=name, limit=limit) for name, limit in zip(FIELDS, (2, 100, 3, 100, 2), strict=True)]
    passing = [one for id_, one in stored.items() if where is None or matches(where, one, id_)]  # type: ignore[arg-type]
    found = await world.documents.facets(world.collection, requests, where)
    assert list(found) == [facet_of(one, passing) for one in requests]


async def test_values_are_in_memory_before_they_are_asked_for(declared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(declared.documents, PostgresDocuments):
        return
    monkeypatch.setattr(postgres_facets, "MAX_CHANGED", 3)
    await declared.documents.warm_facets([declared.collection])
    stored: dict[str, dict[str, Any]] = {f"d{at}": {"kind": "x", "price": at} for at in range(9)}
    await declared.put(*(doc(name, **one) for name, one in stored.items()))
    await declared.documents.warm_facets([declared.collection])  # more changed than is read again one by one
    with monkeypatch.context() as reading:
        reading.setattr(postgres_facets.Facets, "_load", None)
        for _ in range(2):
            await assert_exact(declared, stored, None)
        await declared.documents.warm_facets([declared.collection])
        stored["d0"] = {"kind": "y"}
        await declared.put(doc("d0", **stored["d0"]))
        await assert_exact(declared, stored, None)
    await declared.collections.delete(declared.collection.id)
    await declared.documents.warm_facets([declared.collection])


async def test_idle_collections_are_not_read_again(declared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(declared.documents, PostgresDocuments):
        return
    await declared.put(doc("d0", kind="x"))
    await declared.documents.warm_facets([declared.collection])
    with monkeypatch.context() as reading:
        reading.setattr(postgres_facets.Facets, "_count_held", None)
        await declared.documents.warm_facets([declared.collection])
    await declared.put(doc("d1", kind="x"))
    await declared.documents.warm_facets([declared.collection])
    assert len(declared.documents._facets._held[declared.collection.id].rows) == 2


async def test_collections_that_do_not_fit_are_not_held(declared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(declared.documents, PostgresDocuments):
        return
    monkeypatch.setattr(postgres_facets, "HELD_DOCUMENTS", 5)
    stored: dict[str, dict[str, Any]] = {f"d{at}": {"kind": "x"} for at in range(6)}
    await declared.put(*(doc(name, **one) for name, one in stored.items()))
    await declared.documents.warm_facets([declared.collection])
    assert declared.documents._facets._held == {}
    await assert_exact(declared, stored, None)


@pytest.mark.parametrize("seed", range(3))
async def test_counts_follow_every_write(declared: World, seed: int) -> None:
    generator, stored = random.Random(seed), dict[str, dict[str, Any]]()
    filters = [None if one is None else parse(one) for one in FILTERS]
    await assert_exact(declared, stored, None)
    for _ in range(12):
        names = [f"d{generator.randrange(60):02}" for _ in range(generator.randrange(1, 15))]
        if generator.random() < 0.3:
            await declared.delete(*dict.fromkeys(names))
            stored = {name: one for name, one in stored.items() if name not in names}
        else:
            changed = {name: made_up(generator) for name in names}
            stored |= changed
            await declared.put(*(doc(name, **one) for name, one in changed.items()))
        for where in generator.sample(filters, 2):
            await assert_exact(declared, stored, where)


@pytest.mark.database
async def test_too_much_to_hold_or_to_refresh_is_counted_anew(postgres: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(postgres.collection.settings, indexed=("n", "kind"))
    postgres.collection = await postgres.collections.update(postgres.collection, settings)
    wanted = [FacetRequest(field="n", limit=50), FacetRequest(field="kind")]
    stored: list[dict[str, Any]] = [{"n": at % 7, "kind": "ab"[at % 2]} for at in range(40)]
    for held, changed in ((300, 2_000), (300, 3), (30, 2_000)):
        monkeypatch.setattr(postgres_facets, "HELD_DOCUMENTS", held)
        monkeypatch.setattr(postgres_facets, "MAX_CHANGED", changed)
        for where in (None, parse({"kind": "a"})):
            await postgres.put(*(doc(f"d{at:02}", **one) for at, one in enumerate(stored)))
            passing = [one for one in stored if where is None or one["kind"] == "a"]
            found = await postgres.documents.facets(postgres.collection, wanted, where)
            assert list(found) == [facet_of(one, passing) for one in wanted]
            stored = [{"n": one["n"] + 1, "kind": "ba"[one["kind"] == "b"]} for one in stored]
    monkeypatch.setattr(postgres_facets, "MAX_DISTINCT", 3)
    with pytest.raises(Invalid, match="more than 3 different values"):
        await postgres.documents.facets(postgres.collection, wanted, None)
