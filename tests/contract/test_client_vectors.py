"""The contract of `Documents.put` for vectors of clients, for the fake and for PostgreSQL."""

import asyncio
import dataclasses

import numpy as np
import pytest

from service.core.collections import IndexSettings, Storage
from service.core.documents import Document
from service.core.errors import VersionNotFound
from service.core.ids import DocumentId, VersionNumber
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.core.versions import EmbedderVersion, VersionState
from service.store.postgres import documents
from tests.second_version import add_external
from tests.storages import STORAGES
from tests.world import NOW, World, doc, later, unit

EXACT = DensePlan(kind="exact")


def bringing(name: str, *vector: float, text: str | None = None) -> Document:
    return dataclasses.replace(doc(name, text), vector=vector)


async def put(world: World, version: EmbedderVersion, *batch: Document) -> list[tuple[str, int]]:
    accepted = await world.documents.put(world.collection.id, batch, NOW, vectors_of=version)
    return [(one.status, one.revision) for one in accepted]


async def waiting(world: World, version: EmbedderVersion, *names: str) -> tuple[DocumentId, ...]:
    return await world.queue.unfinished(world.collection.id, version.number, [DocumentId(name) for name in names])


@pytest.fixture
async def external(world: World) -> EmbedderVersion:
    return await add_external(world, 2, VersionState.READY)


async def test_a_vector_is_stored_with_its_document(world: World, external: EmbedderVersion) -> None:
    assert await put(world, external, bringing("a", 3, 4, 0, 0, text="0123456789")) == [("created", 1)]
    (found,) = await world.vectors.nearest(VectorQuery(external, unit(3, 4, 0, 0), 10, EXACT))
    assert (found.document_id, found.chunk, found.start, found.end, found.content_revision) == ("a", 0, 0, 10, 1)
    assert found.score == pytest.approx(1.0, abs=1e-6)


async def test_its_job_ends_there_and_nowhere_else(world: World, external: EmbedderVersion) -> None:
    await put(world, external, bringing("a", 1, 0, 0, 0), doc("without"))
    assert await waiting(world, external, "a", "without") == ("without",)
    assert await waiting(world, world.version, "a", "without") == ("a", "without")
    assert await world.stored_chunks(external) == {("a", 0): 1}
    assert await world.stored_chunks() == {}


async def test_it_can_follow_its_document(world: World, external: EmbedderVersion) -> None:
    await world.put(doc("a"))
    assert await waiting(world, external, "a") == ("a",)
    assert await put(world, external, bringing("a", 1, 0, 0, 0)) == [("updated", 1)]
    assert await waiting(world, external, "a") == ()
    assert await world.stored_chunks(external) == {("a", 0): 1}


async def test_the_same_again_changes_nothing(world: World, external: EmbedderVersion) -> None:
    await put(world, external, bringing("a", 0.1, 0.2, 0.3, 0.4))
    assert await put(world, external, bringing("a", 0.1, 0.2, 0.3, 0.4)) == [("unchanged", 1)]
    assert await put(world, external, doc("a")) == [("unchanged", 1)]
    assert await world.stored_chunks(external) == {("a", 0): 1}


async def test_another_vector_of_the_same_content_replaces_it(world: World, external: EmbedderVersion) -> None:
    await put(world, external, bringing("a", 1, 0, 0, 0), bringing("b", 1, 0, 0, 0))
    changed = await put(world, external, bringing("a", 0, 1, 0, 0), bringing("b", 1, 0, 0, 0))
    assert changed == [("updated", 1), ("unchanged", 1)]
    read = await world.vectors.get(external, [(DocumentId("a"), 0)])
    np.testing.assert_allclose(read[DocumentId("a"), 0], unit(0, 1, 0, 0))


async def test_a_vector_of_content_that_was_replaced_is_none(world: World, external: EmbedderVersion) -> None:
    """The same vector again counts where the content became another in between."""
    await put(world, external, bringing("a", 1, 0, 0, 0))
    await put(world, external, doc("a", "other text"))
    assert await waiting(world, external, "a") == ("a",)
    assert await world.stored_chunks(external) == {("a", 0): 1}
    assert await put(world, external, bringing("a", 1, 0, 0, 0, text="other text")) == [("updated", 2)]
    assert await waiting(world, external, "a") == ()
    assert await world.stored_chunks(external) == {("a", 0): 2}


@pytest.mark.parametrize("storage", STORAGES)
async def test_only_the_direction_counts_however_long_it_is(world: World, storage: Storage) -> None:
    """Half precision ends at 65,504, the squares of single precision at vectors of length 1e19."""
    version = dataclasses.replace(world.version, index=IndexSettings(storage=storage))
    external = await add_external(dataclasses.replace(world, version=version), 2, VersionState.READY)
    assert external.index.storage == storage
    lengths = (1e-40, 1e-3, 1e6, 1e30)
    await put(world, external, *(bringing(f"{length}", 3 * length, 0, -4 * length, 0) for length in lengths))
    read = await world.vectors.get(external, [(DocumentId(f"{length}"), 0) for length in lengths])
    assert len(read) == 4
    for vector in read.values():
        np.testing.assert_allclose(vector, [0.6, 0, -0.8, 0], atol=1e-3)


async def test_a_deleted_document_takes_its_vector_along(world: World, external: EmbedderVersion) -> None:
    await put(world, external, bringing("a", 1, 0, 0, 0))
    await world.delete("a")
    assert await world.stored_chunks(external) == {}
    assert await put(world, external, bringing("a", 1, 0, 0, 0)) == [("created", 3)]
    assert await world.stored_chunks(external) == {("a", 0): 3}


@pytest.mark.parametrize("state", [VersionState.RETIRED, VersionState.FAILED])
async def test_a_version_that_is_not_written_takes_none(world: World, state: VersionState) -> None:
    """As it is now, whatever the caller last saw."""
    stale = dataclasses.replace(await add_external(world, 2, state), state=VersionState.READY)
    with pytest.raises(VersionNotFound):
        await put(world, stale, bringing("a", 1, 0, 0, 0))
    assert await world.documents.get(world.collection.id, [DocumentId("a")]) == {}


async def test_a_version_with_a_model_takes_none(world: World) -> None:
    """A vector that a client made must never stand beside those of a model."""
    for version in (world.version, dataclasses.replace(world.version, number=VersionNumber(9))):
        with pytest.raises(VersionNotFound):
            await put(world, version, bringing("a", 1, 0, 0, 0))
    assert await world.stored_chunks() == {}
    assert await world.documents.get(world.collection.id, [DocumentId("a")]) == {}


@pytest.mark.database
async def test_writers_of_the_same_documents_in_other_orders_all_finish(
    postgres: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "retrying", lambda work: work())
    external = await add_external(postgres, 2, VersionState.READY)
    batch = [bringing(f"d{number:03d}", 1, number, 0, 0) for number in range(100)]
    other = [bringing(f"d{number:03d}", number, 1, 0, 0) for number in reversed(range(100))]
    await postgres.put(*batch)
    await asyncio.gather(put(postgres, external, *batch), put(postgres, external, *other))
    assert len(await postgres.stored_chunks(external)) == 100
    # One of the two came last, for every document.
    read = await postgres.vectors.get(external, [(one.id, 0) for one in batch])
    assert any(
        all(np.allclose(read[one.id, 0], unit(*(one.vector or ())), atol=1e-3) for one in side)
        for side in (batch, other)
    )


@pytest.mark.database
async def test_a_vector_that_the_table_refuses_leaves_its_document_unwritten(postgres: World) -> None:
    """One transaction: there is no document without the vector that it was acknowledged with."""
    external = await add_external(postgres, 2, VersionState.READY)
    for refused in [(0, 0, 0, 0), (1, 0, 0), (float("nan"), 0, 0, 1)]:
        with pytest.raises(Exception, match=r"constraint|dimensions|NaN"):
            await put(postgres, external, bringing("a", *refused))
    assert await postgres.documents.get(postgres.collection.id, [DocumentId("a")]) == {}
    assert await postgres.claim(now=later(1)) == ()
