"""The version's story over fakes: what is registered, what is refused and why, when an index is built."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pytest
from prometheus_client import REGISTRY

from service.domain import (
    Chunking,
    Collection,
    CollectionName,
    CollectionSettings,
    EmbedderSpec,
    EmbedderVersion,
    QueueStatus,
    Role,
    SpaceStatus,
    Vectors,
)
from service.embedder.hashing import HashingEncoder
from service.embedder.registry import Registry
from service.errors import Conflict, EmbedderChange, Invalid, Misconfigured, SpaceRefused, VersionNotFound
from service.lifecycle import CANARY_TEXTS, Lifecycle
from tests.fakes import FakeQueue, FakeStore
from tests.fakes_catalog import FakeCollections, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = CollectionName("books")


class Turned(HashingEncoder):
    """Another space under the same fingerprint: every vector turned by some degrees."""

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        vectors = super().encode(texts, role)
        return np.roll(vectors, 1, axis=1)


class Broken(HashingEncoder):
    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        return super().encode(texts, role) * np.float32(np.nan)


class CountingVersions(FakeVersions):
    """Says that there are so many rows, and counts how often an index was built."""

    rows = 0
    built = 0

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        return SpaceStatus(rows=self.rows, indexed=self.built > 0, chunks_per_document=1.0)

    async def build_index(self, version: EmbedderVersion) -> bool:
        self.built += 1
        return True


class BusyQueue(FakeQueue):
    waiting = 0

    async def status(self, collection_id: object, now: datetime) -> QueueStatus:
        return QueueStatus(pending=self.waiting, failed=0, oldest_seconds=0.0)


@dataclass
class Place:
    collections: FakeCollections
    versions: CountingVersions
    queue: BusyQueue

    def lifecycle(self, encoder: HashingEncoder | None = None) -> Lifecycle:
        registry = Registry(
            default="hashing:32", load=lambda _: encoder or HashingEncoder(EmbedderSpec(model="hashing:32"))
        )
        return Lifecycle(
            collections=self.collections,
            versions=self.versions,
            queue=self.queue,
            embedders=registry,
            exact_below=100,
        )

    async def create(self) -> Collection:
        return await self.lifecycle().create(NAME, CollectionSettings(), NOW)


@pytest.fixture
def place() -> Place:
    collections = FakeCollections()
    return Place(collections, CountingVersions(collections), BusyQueue(FakeStore(collections)))


async def test_a_new_collection_has_one_version_with_identity_and_canary(place: Place) -> None:
    collection = await place.create()
    assert collection.settings.embedder.model == "hashing:32", "default is resolved once, so it stays what it was"
    (version,) = await place.versions.of(collection.id)
    assert version.fingerprint == version.identity.fingerprint
    assert set(version.canary) == set(CANARY_TEXTS)
    assert version.dimensions == 32
    with pytest.raises(Conflict):
        await place.create()


async def test_settings_change_in_place_but_not_what_moves_vectors(place: Place) -> None:
    collection = await place.create()
    lifecycle = place.lifecycle()
    changed = await lifecycle.configure(collection, replace(collection.settings, recall_target=0.99))
    assert changed.settings.recall_target == 0.99
    with pytest.raises(EmbedderChange):
        await lifecycle.configure(changed, replace(changed.settings, embedder=EmbedderSpec(model="hashing:64")))
    with pytest.raises(EmbedderChange, match="chunking"):
        await lifecycle.configure(changed, replace(changed.settings, chunking=Chunking(max_tokens=64)))
    with pytest.raises(Invalid):
        await lifecycle.configure(changed, replace(changed.settings, embedder=EmbedderSpec(model="unheard/of")))


async def test_the_registered_model_is_admitted_and_its_canary_exported(place: Place) -> None:
    (version,) = await place.versions.of((await place.create()).id)
    assert (await place.lifecycle().admit(version)).identity == version.identity
    labels = {"collection": NAME, "version": "1"}
    assert REGISTRY.get_sample_value("azimuth_canary_cosine", labels) == pytest.approx(1.0, abs=1e-5)


async def test_another_model_is_refused_naming_what_differs(place: Place) -> None:
    (version,) = await place.versions.of((await place.create()).id)
    with pytest.raises(SpaceRefused, match="dimensions"):
        await place.lifecycle(HashingEncoder(EmbedderSpec(model="hashing:64"))).admit(version)


async def test_the_same_fingerprint_with_other_vectors_is_refused_by_the_canary(place: Place) -> None:
    (version,) = await place.versions.of((await place.create()).id)
    with pytest.raises(SpaceRefused, match="canary"):
        await place.lifecycle(Turned(EmbedderSpec(model="hashing:32"))).admit(version)
    with pytest.raises(SpaceRefused, match="canary"):
        await place.lifecycle(Broken(EmbedderSpec(model="hashing:32"))).admit(version)


async def test_a_model_without_usable_vectors_makes_no_collection(place: Place) -> None:
    with pytest.raises(Misconfigured, match="unusable"):
        await place.lifecycle(Broken(EmbedderSpec(model="hashing:32"))).create(NAME, CollectionSettings(), NOW)
    assert await place.collections.all() == ()


@pytest.mark.parametrize(
    ("rows", "waiting", "built"),
    [(100, 0, 0), (101, 0, 1), (1000, 101, 0), (1000, 100, 1), (2001, 9999, 1)],
    ids=["small", "outgrown", "in the middle of a load", "load nearly done", "too large to wait"],
)
async def test_when_an_index_is_built(place: Place, rows: int, waiting: int, built: int) -> None:
    await place.create()
    place.versions.rows, place.queue.waiting = rows, waiting
    lifecycle = place.lifecycle()
    await lifecycle.tend(NOW)
    await lifecycle.tend(NOW)
    assert place.versions.built == built


async def test_a_model_that_is_no_longer_allowed_is_refused_but_the_other_settings_still_change(place: Place) -> None:
    collection = await place.create()
    (version,) = await place.versions.of(collection.id)
    spec = EmbedderSpec(model="once/allowed")
    place.collections.rows[collection.id] = collection = replace(
        collection, settings=replace(collection.settings, embedder=spec)
    )
    with pytest.raises(SpaceRefused, match="once/allowed"):
        await place.lifecycle().admit(replace(version, spec=spec))
    changed = await place.lifecycle().configure(collection, replace(collection.settings, language="de"))
    assert changed.settings.language == "de"


async def test_a_version_that_goes_meanwhile_does_not_keep_the_others_from_their_index(place: Place) -> None:
    class Gone(CountingVersions):
        async def status(self, version: EmbedderVersion) -> SpaceStatus:
            if version.collection_id == first.id:
                raise VersionNotFound
            return await super().status(version)

    first = await place.create()
    place.versions = Gone(place.collections)
    place.versions.rows = 1000
    await place.lifecycle().create(CollectionName("others"), CollectionSettings(), NOW)
    await place.lifecycle().tend(NOW)
    assert place.versions.built == 1


class Shop:
    """A model folder whose content an operator can swap while it is in use."""

    def __init__(self) -> None:
        self.stock = 32
        self.loads = 0

    def load(self, spec: EmbedderSpec) -> HashingEncoder:
        self.loads += 1
        shop, bought = self, self.stock

        class Watched(HashingEncoder):
            def unchanged(self) -> bool:
                return shop.stock == bought

        return Watched(EmbedderSpec(model=f"hashing:{bought}"))


async def test_a_model_that_is_swapped_while_it_runs_is_refused_at_the_next_check(place: Place) -> None:
    shop = Shop()
    lifecycle = Lifecycle(
        collections=place.collections,
        versions=place.versions,
        queue=place.queue,
        embedders=Registry(default="hashing:32", load=shop.load),
        exact_below=100,
    )
    (version,) = await place.versions.of((await lifecycle.create(NAME, CollectionSettings(), NOW)).id)
    await lifecycle.admit(version)
    await lifecycle.prove_all()
    assert shop.loads == 1, "what did not change is not loaded again"

    shop.stock = 64
    await lifecycle.admit(version)  # until the next look it is the right model that answers
    await lifecycle.prove_all()
    with pytest.raises(SpaceRefused, match="dimensions"):
        await lifecycle.admit(version)
    assert shop.loads == 2
    with pytest.raises(SpaceRefused, match="dimensions"):
        await lifecycle.admit(version)
    assert shop.loads == 2, "a refusal is remembered for a while"

    shop.stock = 32
    assert (await lifecycle.prove(version)).identity == version.identity
    await lifecycle.admit(version)
