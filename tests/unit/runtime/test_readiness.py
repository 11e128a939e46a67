"""What an API process reports: to /readyz, and to the other processes."""

from datetime import UTC, datetime
from unittest import mock

import pytest

from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.ids import CollectionName, VersionNumber
from service.embedder.models.registry import ModelRegistry
from service.runtime.readiness import Readiness
from service.spaces.model_verification import ModelVerifier
from tests.fakes import FakeCollections, FakeProcesses, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def collections() -> FakeCollections:
    return FakeCollections()


@pytest.fixture
def verifier(collections: FakeCollections) -> ModelVerifier:
    registry = ModelRegistry(default="hashing:32")
    return ModelVerifier(collections=collections, versions=FakeVersions(collections), embedders=registry)


@pytest.fixture
def readiness(collections: FakeCollections, verifier: ModelVerifier) -> Readiness:
    return Readiness(
        collections=collections,
        versions=FakeVersions(collections),
        processes=FakeProcesses(),
        embedders=ModelRegistry(default="hashing:32"),
        verifier=verifier,
        lexicon_built=lambda _: True,
        check_seconds=30.0,
    )


async def create(collections: FakeCollections, verifier: ModelVerifier, name: str) -> tuple[int, int]:
    spec, identity, canary = await verifier.register(EmbedderSpec())
    made = await collections.create(CollectionName(name), CollectionSettings(embedder=spec), identity, canary, NOW)
    return made.id, made.active_version


async def test_models_of_deleted_collections_are_not_verified_any_more(
    collections: FakeCollections, verifier: ModelVerifier, readiness: Readiness
) -> None:
    gone, kept = await create(collections, verifier, "gone"), await create(collections, verifier, "kept")
    await readiness.check_models()
    assert verifier.verified == {gone, kept}
    await collections.delete(next(id_ for id_ in collections.rows if id_ == gone[0]))
    await readiness.check_models()
    assert verifier.verified == {kept}
    assert set(verifier.canary_cosines) == {(kept[0], VersionNumber(1))}


async def test_collections_are_read_once_for_many_versions(
    collections: FakeCollections, verifier: ModelVerifier, readiness: Readiness
) -> None:
    for number in range(20):
        await create(collections, verifier, f"c{number}")
    with mock.patch.object(collections, "all", wraps=collections.all) as read:
        await readiness.check_models()
    assert len(verifier.verified) == 20
    assert read.await_count == 1
