"""The document's story over fakes: what is refused and why, what is committed, and streams that go wrong half-way."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.core import filters
from service.core.collections import EXTERNAL, Collection, CollectionSettings, DeclaredField, EmbedderSpec
from service.core.documents import Accepted, Document
from service.core.errors import CollectionNotFound, Conflict, Invalid, VersionNotFound
from service.core.ids import CollectionName, DocumentId, VersionNumber
from service.core.versions import EmbedderVersion, VersionState
from service.embedder.models.registry import ModelRegistry
from service.ingest.service import IngestService
from service.ingest.stream import BATCH_DOCUMENTS
from service.ingest.validation import DocumentLimits, VectorTarget, vector_target
from service.spaces.model_verification import ModelVerifier
from tests.fakes import FakeAdapters

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = DocumentLimits(id_length=20, title_length=30, text_length=200, metadata_bytes=200, metadata_depth=3, batch=5)


class Place(FakeAdapters):
    """A collection, its only version, and the service that writes into it."""

    collection: Collection
    version: EmbedderVersion

    async def create(self, spec: EmbedderSpec) -> "Place":
        registry = ModelRegistry(default="hashing:16")
        verifier = ModelVerifier(collections=self.collections, versions=self.versions, embedders=registry)
        spec, identity, canary = await verifier.register(spec)
        settings = CollectionSettings(embedder=spec)
        self.collection = await self.collections.create(CollectionName("c"), settings, identity, canary, NOW)
        (self.version,) = self.collections.versions[self.collection.id]
        self.ingest = IngestService(
            collections=self.collections,
            documents=self.documents,
            queue=self.queue,
            versions=self.versions,
            changes=self.changes,
            lexicon=self.lexicon,
            limits=LIMITS,
            wait_seconds=0.1,
        )
        return self

    async def write(self, *documents: Document, target: VectorTarget | None = None) -> tuple[Accepted, ...]:
        return await self.ingest.write(self.collection, documents, target)


@pytest.fixture
async def place() -> Place:
    return await Place().create(EmbedderSpec(model="hashing:16"))


@pytest.fixture
async def theirs() -> Place:
    """Its only version takes the client's own vectors, of three dimensions."""
    return await Place().create(EmbedderSpec(model=EXTERNAL, dimensions=3, identity="theirs"))


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
        (document(metadata={"$a": 1}), "documents.0.metadata"),
        (document(metadata={"": 1}), "documents.0.metadata"),
        (document(metadata={"é": 1, "e\u0301": 2}), "documents.0.metadata"),
        (document(metadata={"b": [{"a.a.a.a.a.a.a.a": 1}]}), "documents.0.metadata.b.0"),
    ],
)
async def test_an_invalid_document_is_refused_with_its_batch(place: Place, bad: Document, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        await place.write(bad, document("good"))
    assert [error.field for error in refused.value.errors] == [field]
    assert await place.documents.page(place.collection.id, None, 10, None) == ()


async def test_metadata_has_the_types_of_declared_fields(place: Place) -> None:
    indexed = (DeclaredField(field="a.at", type="datetime"), DeclaredField(field="n", type="number"), "x")
    place.collection = replace(place.collection, settings=replace(place.collection.settings, indexed=indexed))
    with pytest.raises(Invalid) as refused:
        await place.write(
            document("1", metadata={"a": {"at": "2024-05-01"}, "n": 5, "x": "1"}),
            document("2", metadata={"a": [{"at": "soon"}], "n": "5"}),
            document("3", metadata={"a.at": 5, "n": None}),
        )
    places = ["documents.1.metadata.a.at", "documents.1.metadata.n", "documents.2.metadata.a.at"]
    assert [error.field for error in refused.value.errors] == places
    assert all("declared as" in error.message for error in refused.value.errors)


async def test_repeated_ids_and_too_many_documents_are_refused(place: Place) -> None:
    with pytest.raises(Invalid, match="cannot be accepted") as refused:
        await place.write(document("a"), document("a"))
    assert refused.value.errors[0].field == "documents.1.id"
    with pytest.raises(Invalid, match="at most 5"):
        await place.write(*(document(str(number)) for number in range(6)))


async def test_a_title_alone_is_a_document(place: Place) -> None:
    (accepted,) = await place.write(document(title="only a title", text=""))
    assert accepted.status == "created"


async def lines(*items: Document | str) -> AsyncIterator[list[tuple[int, Document | str]]]:
    for number, item in enumerate(items, start=1):
        yield [(number, item)]


async def test_a_stream_commits_valid_documents_and_lists_errors_by_line(place: Place) -> None:
    outcome = await place.ingest.stream(
        place.collection, lines(document("a"), "not JSON", document("b", text=""), document("a", text="later wins"))
    )
    assert outcome.counts == {"created": 1, "updated": 1, "unchanged": 0}
    assert [line for line, _ in outcome.errors] == [2, 3]
    assert outcome.failed == 2
    stored = await place.documents.get(place.collection.id, [DocumentId("a")])
    assert stored[DocumentId("a")].text == "later wins"


async def test_a_stream_that_breaks_off_keeps_what_was_committed(place: Place) -> None:
    async def broken() -> AsyncIterator[list[tuple[int, Document | str]]]:
        for number in range(BATCH_DOCUMENTS + 10):
            yield [(number + 1, document(f"d{number:04d}"))]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await place.ingest.stream(place.collection, broken())
    assert len(await place.documents.page(place.collection.id, None, 10_000, None)) == BATCH_DOCUMENTS


async def test_delete_by_filter(place: Place) -> None:
    await place.write(*(document(str(year), metadata={"year": year}) for year in range(5)))
    assert await place.ingest.delete_matching(place.collection, filters.parse({"year": {"$gte": 2}})) == 3
    assert [one.id for one in await place.documents.page(place.collection.id, None, 10, None)] == ["0", "1"]


async def test_waiting_times_out(place: Place) -> None:
    await place.write(document("a"))
    assert not await place.ingest.wait_until_searchable(place.collection, [DocumentId("a")])
    assert await place.ingest.wait_until_searchable(place.collection, [])


async def test_a_document_that_was_set_aside_is_not_searchable(place: Place) -> None:
    await place.write(document("a"))
    (claimed,) = await place.queue.claim([place.version], 10, "w", datetime.now(UTC), timedelta(seconds=60))
    assert await place.queue.record_failure([claimed.job], "poison", 1, NOW, NOW) == ("a",)
    assert not await place.ingest.wait_until_searchable(place.collection, [DocumentId("a")])


async def test_waits_end_when_the_process_stops(place: Place) -> None:
    patient = replace(place.ingest, wait_seconds=60.0)
    await place.write(document("a"))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(patient.wait_until_searchable(place.collection, [DocumentId("a")]))
        while not patient.waits:
            await asyncio.sleep(0)
        patient.stop_waiting()
    assert waiting.result() is False
    assert not await patient.wait_until_searchable(place.collection, [DocumentId("a")])


async def test_a_wait_ends_when_its_collection_is_deleted(place: Place) -> None:
    patient = replace(place.ingest, wait_seconds=60.0)
    await place.write(document("a"))
    waiting = asyncio.create_task(patient.wait_until_searchable(place.collection, [DocumentId("a")]))
    while not patient.waits:
        await asyncio.sleep(0)
    await place.collections.delete(place.collection.id)
    async with asyncio.timeout(5):
        with pytest.raises(CollectionNotFound):
            await waiting
    assert not patient.waits


async def test_a_client_vector_is_stored_at_length_one(theirs: Place) -> None:
    await theirs.write(document(vector=(0.0, 3e300, 4e300)), document("mute"), target=theirs.version)
    stored = theirs.store.space(theirs.version)
    np.testing.assert_allclose(stored[DocumentId("a"), 0].embedding, [0.0, 0.6, 0.8], atol=1e-3)
    assert [key[1] for key in theirs.store.jobs] == ["mute"]


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ((1.0, 2.0), "has 2 numbers; version 1 has 3 dimensions"),
        ((0.0, 0.0, -0.0), "no direction"),
        ((1.0, float("nan"), 0.0), "no direction"),
        ((1.0, float("inf"), 0.0), "no direction"),
    ],
)
async def test_an_invalid_vector_is_refused(theirs: Place, vector: tuple[float, ...], reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        await theirs.write(document(vector=vector), target=theirs.version)
    (error,) = refused.value.errors
    assert error.field == "documents.0.vector"
    assert reason in error.message
    outcome = await theirs.ingest.stream(theirs.collection, lines(document(vector=vector)), theirs.version)
    assert reason in outcome.errors[0][1]
    assert not theirs.store.documents


async def test_a_vector_without_a_target_is_refused_with_the_reason(place: Place) -> None:
    for takes in (None, "there is none"):
        with pytest.raises(Invalid) as refused:
            await place.write(document(vector=(1.0,)), target=takes)
        assert (takes or "no embedder version") in refused.value.errors[0].message


async def test_a_missing_client_vector_is_not_waited_for(theirs: Place) -> None:
    patient = replace(theirs.ingest, wait_seconds=60.0)
    await theirs.write(document("mute"), document("a", vector=(1.0, 0.0, 0.0)), target=theirs.version)
    async with asyncio.timeout(5):
        assert await patient.wait_until_searchable(theirs.collection, [DocumentId("a")])
        assert not await patient.wait_until_searchable(theirs.collection, [DocumentId("a"), DocumentId("mute")])


async def test_the_vector_target_is_the_named_or_the_only_external_version(theirs: Place) -> None:
    first = theirs.version
    second = replace(first, number=VersionNumber(2))
    ours = replace(first, number=VersionNumber(3), spec=EmbedderSpec(model="hashing:16"))
    gone = replace(first, number=VersionNumber(4), state=VersionState.RETIRED)
    assert vector_target([first, ours, gone], None) == first
    assert vector_target([first, second, ours], VersionNumber(2)) == second
    assert "takes vectors" in str(vector_target([ours, gone], None))
    assert "(1, 2)" in str(vector_target([first, second], None))
    for number, error in ((3, Invalid), (4, Conflict), (5, VersionNotFound)):
        with pytest.raises(error):
            vector_target([first, ours, gone], VersionNumber(number))
