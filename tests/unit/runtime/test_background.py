"""A worker of a new installation loads the default model; others load what their collections need."""

from datetime import UTC, datetime

from service.core.collections import EXTERNAL, CollectionSettings, EmbedderSpec
from service.core.ids import CollectionName
from service.embedder.models.registry import ModelRegistry
from service.runtime.container.background import load_default_model
from service.spaces.model_verification import ModelVerifier
from tests.fakes import FakeAdapters

DEFAULT = "hashing:16"


async def loaded(adapters: FakeAdapters, default: str = DEFAULT) -> bool:
    registry = ModelRegistry(default=default)
    verifier = ModelVerifier(collections=adapters.collections, versions=adapters.versions, embedders=registry)
    await load_default_model(adapters.collections, verifier)
    found = bool(registry._cache)
    await registry.close()
    return found


async def test_a_new_installation_has_its_model_loaded() -> None:
    assert await loaded(FakeAdapters())


async def test_a_model_that_cannot_be_loaded_stops_nothing() -> None:
    assert not await loaded(FakeAdapters(), "/no/such/folder")


async def test_where_clients_bring_their_vectors_none_is_loaded() -> None:
    adapters, registry = FakeAdapters(), ModelRegistry(default=DEFAULT)
    verifier = ModelVerifier(collections=adapters.collections, versions=adapters.versions, embedders=registry)
    spec, identity, canary = await verifier.register(EmbedderSpec(model=EXTERNAL, dimensions=3, identity="theirs"))
    settings = CollectionSettings(embedder=spec)
    await adapters.collections.create(CollectionName("c"), settings, identity, canary, datetime(2026, 1, 1, tzinfo=UTC))
    assert not await loaded(adapters)
