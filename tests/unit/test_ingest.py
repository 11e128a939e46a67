"""The document's story over fakes: what is refused and why, what is committed, and streams that go wrong half-way."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service import filters
from service.domain import Collection, CollectionName, CollectionSettings, Document, DocumentId
from service.embedder.registry import Registry
from service.errors import Invalid
from service.ingest import STREAM_BATCH, Ingest, Limits
from service.lifecycle import Lifecycle
from tests.fakes import FakeChanges, FakeDocuments, FakeLexicon, FakeQueue, FakeStore
from tests.fakes_catalog import FakeCollections, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(id_length=20, title_length=30, text_length=200, metadata_bytes=200, metadata_depth=3, batch=5)


class Place:
    """A collection and the story that writes into it."""

    def __init__(self, store: FakeStore, collection: Collection) -> None:
        self.store = store
        self.documents = FakeDocuments(store)
        self.queue = FakeQueue(store)
        self.collection = collection
        self.ingest = Ingest(
            documents=self.documents,
            queue=self.queue,
            changes=FakeChanges(store),
            lexicon=FakeLexicon(store),
            limits=LIMITS,
            wait_seconds=0.1,
        )


@pytest.fixture
async def place() -> Place:
    collections = FakeCollections()
    store = FakeStore(collections)
    lifecycle = Lifecycle(
        collections=collections,
        versions=FakeVersions(collections),
        queue=FakeQueue(store),
        embedders=Registry(default="hashing:16"),
        exact_below=10,
    )
    return Place(store, await lifecycle.create(CollectionName("c"), CollectionSettings(), NOW))


def document(name: str = "a", **parts: Any) -> Document:
    return Document(**{"id": DocumentId(name), "text": "some text", **parts})


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (document(""), "documents.0.id"),
        (document("x" * 21), "documents.0.id"),
        (document("a\0b"), "documents.0.id"),
        (document(text=""), "documents.0.text"),
        (document(text=" \n "), "documents.0.text"),
        (document(text="x" * 201), "documents.0.text"),
        (document(text="\ud800"), "documents.0.text"),
        (document(title="x" * 31), "documents.0.title"),
        (document(metadata={"a": "b\0"}), "documents.0.metadata.a"),
        (document(metadata={"a\0": 1}), "documents.0.metadata"),
        (document(metadata={"n": 2**63}), "documents.0.metadata.n"),
        (document(metadata={"n": float("nan")}), "documents.0.metadata.n"),
        (document(metadata={"a": {"b": {"c": {"d": 1}}}}), "documents.0.metadata.a.b.c"),
        (document(metadata={"a": [[[1]]]}), "documents.0.metadata.a.0.0"),
        (document(metadata={"a": "x" * 200}), "documents.0.metadata"),
    ],
)
async def test_what_is_refused_names_the_place_and_commits_nothing(place: Place, bad: Document, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        await place.ingest.write(place.collection, [bad, document("good")])
    assert [error.field for error in refused.value.errors] == [field]
    assert await place.documents.page(place.collection.id, None, 10, None) == ()


async def test_the_same_id_twice_and_too_many_at_once_are_refused(place: Place) -> None:
    with pytest.raises(Invalid, match="cannot be accepted") as refused:
        await place.ingest.write(place.collection, [document("a"), document("a")])
    assert refused.value.errors[0].field == "documents.1.id"
    with pytest.raises(Invalid, match="at most 5"):
        await place.ingest.write(place.collection, [document(str(number)) for number in range(6)])


async def test_a_title_alone_is_a_document(place: Place) -> None:
    (accepted,) = await place.ingest.write(place.collection, [document(title="only a title", text="")])
    assert accepted.status == "created"


async def lines(*items: Document | str) -> AsyncIterator[tuple[int, Document | str]]:
    for number, item in enumerate(items, start=1):
        yield number, item


async def test_a_stream_commits_what_is_good_and_tells_the_rest_by_line(place: Place) -> None:
    outcome = await place.ingest.stream(
        place.collection, lines(document("a"), "not JSON", document("b", text=""), document("a", text="later wins"))
    )
    assert outcome.counts == {"created": 1, "updated": 1, "unchanged": 0}
    assert [line for line, _ in outcome.errors] == [2, 3]
    assert outcome.failed == 2
    stored = await place.documents.get(place.collection.id, [DocumentId("a")])
    assert stored[DocumentId("a")].text == "later wins"


async def test_a_stream_that_breaks_off_keeps_what_was_committed(place: Place) -> None:
    async def broken() -> AsyncIterator[tuple[int, Document | str]]:
        for number in range(STREAM_BATCH + 10):
            yield number + 1, document(f"d{number:04d}")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await place.ingest.stream(place.collection, broken())
    assert len(await place.documents.page(place.collection.id, None, 10_000, None)) == STREAM_BATCH


async def test_delete_by_filter(place: Place) -> None:
    await place.ingest.write(place.collection, [document(str(year), metadata={"year": year}) for year in range(5)])
    assert await place.ingest.delete_passing(place.collection, filters.parse({"year": {"$gte": 2}})) == 3
    left = await place.documents.page(place.collection.id, None, 10, None)
    assert [one.id for one in left] == ["0", "1"]


async def test_waiting_ends_and_says_that_it_was_in_vain(place: Place) -> None:
    await place.ingest.write(place.collection, [document("a")])
    assert not await place.ingest.searchable(place.collection, [DocumentId("a")])
    assert await place.ingest.searchable(place.collection, [])


async def test_what_was_set_aside_is_not_called_searchable(place: Place) -> None:
    await place.ingest.write(place.collection, [document("a")])
    (version,) = place.store.collections.versions[place.collection.id]
    (claimed,) = await place.queue.claim([version], 10, "w", datetime.now(UTC), timedelta(seconds=60))
    assert await place.queue.charge([claimed.job], "poison", 1, NOW, NOW) == ("a",)
    assert not await place.ingest.searchable(place.collection, [DocumentId("a")])


async def test_whoever_waits_is_answered_when_the_process_stops(place: Place) -> None:
    patient = Ingest(
        documents=place.documents,
        queue=place.queue,
        changes=FakeChanges(place.store),
        lexicon=FakeLexicon(place.store),
        limits=LIMITS,
        wait_seconds=60.0,
    )
    await patient.write(place.collection, [document("a")])
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(patient.searchable(place.collection, [DocumentId("a")]))
        while not patient._waits:
            await asyncio.sleep(0)
        patient.end_waiting()
    assert waiting.result() is False
    assert not await patient.searchable(place.collection, [DocumentId("a")])
