"""One meaning of a filter in all places: both legs, listing and deletion agree with `filters.matches`.

40 documents and 10 filters an example, 25 examples: 10,000 pairs. Each filter is asked in every way that a leg may
take, documents named or not, by an exact scan or along the index; with some fields declared, then with others. Deletion
and coming back show that what was remembered of a filter is brought up to date.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.core import filters
from service.core.documents import Document
from service.core.filters import Filter
from service.core.metadata import name_error, nfc
from service.core.search import FilterMatch, SearchRequest
from service.core.versions import SpaceStatus
from service.search.retrievers import DenseRetriever, LexicalRetriever
from service.spaces.resolver import Space
from service.store.postgres.connection.pool import Pool
from service.store.postgres.filters.indexed_fields import PREFIX, IndexedFields
from service.store.postgres.vectors.vector_tables import create_index
from tests.property.test_filters import FILTERS, KEYS, METADATA
from tests.unit.search.test_retrievers_under_filters import Words
from tests.world import World, build, doc, later, telling

DOCUMENTS, ASKED, EXAMPLES = 40, 10, 25

# Around the length that is kept of a text, and what a value may be beside another of the same field.
LONG = ["x" * (PREFIX - 1), "x" * PREFIX, "x" * (PREFIX + 1), "x" * PREFIX + "y", "é" * (PREFIX - 1) + "a"]
SPECIAL = st.sampled_from([*LONG, [1, 5], [1, "5", True, None], [], ["x" * 70, "x" * 71], "2024-02-29", "2024-03-01"])
BOUNDS = st.sampled_from([0, 1, 2, 5, -1.5, 0.1, "", "b", "2024-03", *LONG])
ROWS = st.builds(lambda row, key, value: {**row, key: value}, METADATA, st.sampled_from(["a", "b"]), SPECIAL) | METADATA
BETWEEN = st.builds(
    lambda field, low, high, where: {field: {"$gte": low, "$lte": high}, **where},
    st.sampled_from(["a", "b", "a.b"]),
    BOUNDS,
    BOUNDS,
    st.just({}) | FILTERS,
)
DECLARED = st.sets(st.sampled_from(["a", "b", "A", "a.b", "é", "x y", 'q"\\', "b.a"]) | KEYS, max_size=4)


@given(
    rows=st.lists(ROWS, min_size=DOCUMENTS, max_size=DOCUMENTS),
    raws=st.lists(FILTERS | BETWEEN, min_size=ASKED, max_size=ASKED),
    declared=DECLARED,
    later_declared=DECLARED,
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
async def test_all_places_agree_with_the_reference(
    pool: Pool, rows: list[dict[str, Any]], raws: list[dict[str, Any]], declared: set[str], later_declared: set[str]
) -> None:
    asked = [filters.parse(raw) for raw in raws]
    documents = [doc(f"d{number:02d}", "word", n=number) for number in range(DOCUMENTS)]
    documents = [dataclasses.replace(document, metadata=row) for document, row in zip(documents, rows, strict=True)]
    world = await build(pool)
    await declare(world, declared)
    await world.put(*documents)
    await world.drain()
    await pool.execute(create_index(world.version))
    for where in asked:
        await both_legs_and_the_listing(world, where, expected(where, documents))
    await declare(world, later_declared)
    for where in asked:
        right = expected(where, documents)
        await both_legs_and_the_listing(world, where, right)
        await deletion(world, where, documents, right)


def expected(where: Filter, documents: Sequence[Document]) -> set[str]:
    return {document.id for document in documents if filters.matches(where, document.metadata, document.id)}


async def declare(world: World, fields: set[str]) -> None:
    """Declare these fields, and only these, and fill them."""
    names = filters.declared(sorted({nfc(name) for name in fields if not name_error(name)}), "indexed")
    before = world.collection
    world.collection = await world.collections.update(before, dataclasses.replace(before.settings, indexed=names))
    assert world.pool is not None
    await IndexedFields(world.pool).maintain(later(0))
    # As if a second had passed since it was looked up which fields are ready.
    world.documents = type(world.documents)(world.pool)  # type: ignore[call-arg]


async def both_legs_and_the_listing(world: World, where: Filter, right: set[str]) -> None:
    assert {one.id for one in await world.documents.page(world.collection.id, None, 100, where)} == right
    everything = await world.documents.page(world.collection.id, None, 100, None)
    lexicon: Any = Words([one.id for one in everything])
    request = SearchRequest(text="word", where=where, k=DOCUMENTS)
    for cap in (0, 100):
        filter_match = await world.documents.match_filter(world.collection.id, where, cap)
        assert filter_match.ids is None or set(filter_match.ids) == right
        assert (filter_match.ids is None) == (len(right) > cap)
        retriever = LexicalRetriever(lexicon, world.documents)
        by_words = await retriever.search(space(world), request, filter_match, DOCUMENTS)
        assert {id_ for id_, _ in by_words.candidates} == right
        if len(everything) == len(await world.stored_chunks()):
            await dense_leg(world, request, filter_match, right)


async def dense_leg(world: World, request: SearchRequest, filter_match: FilterMatch, right: set[str]) -> None:
    for indexed in (False, True):
        retriever = DenseRetriever(world.vectors, world.documents)
        leg = await retriever.search(space(world, indexed), request, telling("word"), filter_match, DOCUMENTS)
        assert {id_ for id_, _ in leg.candidates} == right, leg.plan


def space(world: World, indexed: bool = False) -> Space:
    status = SpaceStatus(rows=DOCUMENTS, indexed=indexed, chunks_per_document=1.0)
    return Space(collection=world.collection, version=world.version, status=status)


async def deletion(world: World, where: Filter, documents: Sequence[Document], right: set[str]) -> None:
    """Delete what passes; what was remembered of the filter knows it at once, and that it came back."""
    ids = [document.id for document in documents]
    assert set(await world.documents.delete(world.collection.id, ids, later(1), where)) == right
    assert (await world.documents.match_filter(world.collection.id, where, 100)).ids == ()
    await world.put(*(document for document in documents if document.id in right), now=later(2))
    assert set((await world.documents.match_filter(world.collection.id, where, 100)).ids or ()) == right
