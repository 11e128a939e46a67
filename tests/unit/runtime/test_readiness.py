"""What an API process reports: to /readyz, and to the other processes."""

from datetime import UTC, datetime
from unittest import mock

import pytest

from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.ids import CollectionName, VersionNumber
from service.embedder.models.registry import ModelRegistry
from service.runtime.readiness import Readiness
from service.spaces.model_verification import Key, ModelVerifier
from tests.fakes import FakeAdapters

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def readiness() -> Readiness:
    fakes, registry = FakeAdapters(), ModelRegistry(default="hashing:32")
    return Readiness(
        collections=fakes.collections,
        versions=fakes.versions,
        processes=fakes.processes,
        embedders=registry,
        verifier=ModelVerifier(collections=fakes.collections, versions=fakes.versions, embedders=registry),
        lexicon_built=lambda _: True,
        check_seconds=30.0,
    )


async def create(readiness: Readiness, name: str) -> Key:
    spec, identity, canary = await readiness.verifier.register(EmbedderSpec())
    settings = CollectionSettings(embedder=spec)
    made = await readiness.collections.create(CollectionName(name), settings, identity, canary, NOW, "ada")
    return made.id, made.active_version


async def test_models_of_deleted_collections_are_not_verified_any_more(readiness: Readiness) -> None:
    gone, kept = await create(readiness, "gone"), await create(readiness, "kept")
    await readiness.check_models()
    verifier = readiness.verifier
    assert verifier.verified == {gone, kept}
    await readiness.collections.delete(gone[0])
    await readiness.check_models()
    assert verifier.verified == {kept}
    assert set(verifier.canary_cosines) == {(kept[0], VersionNumber(1))}


async def test_collections_are_read_once_for_many_versions(readiness: Readiness) -> None:
    for number in range(20):
        await create(readiness, f"c{number}")
    with mock.patch.object(readiness.collections, "all", wraps=readiness.collections.all) as read:
        await readiness.check_models()
    assert len(readiness.verifier.verified) == 20
    assert read.await_count == 1
