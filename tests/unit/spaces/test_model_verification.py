"""Proof over fakes: who is admitted to a space, who is refused and why, and what is noticed while running."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from prometheus_client import REGISTRY

from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.errors import Invalid, ModelUnavailable, SpaceRefused
from service.core.ids import CollectionName, Role, Vectors
from service.core.versions import EmbedderVersion
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from service.embedder.models.text_input import TextInput
from service.spaces.model_verification import CANARY_TEXTS, ModelVerifier
from tests.fakes import FakeCollections, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = CollectionName("books")


class Rotated(HashingEncoder):
    """Another space under the same fingerprint."""

    def forward(self, inputs: Sequence[TextInput], role: Role) -> Vectors:
        return np.roll(super().forward(inputs, role), 1, axis=1)


class Broken(HashingEncoder):
    def forward(self, inputs: Sequence[TextInput], role: Role) -> Vectors:
        return super().forward(inputs, role) * np.float32(np.nan)


class Place:
    def __init__(self) -> None:
        self.collections = FakeCollections()
        self.versions = FakeVersions(self.collections)

    def verifier(self, load: Callable[[EmbedderSpec], HashingEncoder] = HashingEncoder) -> ModelVerifier:
        registry = ModelRegistry(default="hashing:32", load=load)
        return ModelVerifier(collections=self.collections, versions=self.versions, embedders=registry)

    async def version(self, verifier: ModelVerifier | None = None) -> EmbedderVersion:
        spec, identity, canary = await (verifier or self.verifier()).register(EmbedderSpec())
        settings = CollectionSettings(embedder=spec)
        collection = await self.collections.create(NAME, settings, identity, canary, NOW)
        (version,) = await self.versions.of(collection.id)
        return version


@pytest.fixture
def place() -> Place:
    return Place()


async def test_registering_resolves_the_default_and_takes_identity_and_canary(place: Place) -> None:
    spec, identity, canary = await place.verifier().register(EmbedderSpec())
    assert spec.model == "hashing:32", "default is resolved once, so it stays what it was"
    assert identity.dimensions == 32
    assert set(canary) == set(CANARY_TEXTS)


async def test_the_registered_model_is_admitted_and_its_canary_exported(place: Place) -> None:
    version, verifier = await place.version(), place.verifier()
    assert (await verifier.ensure(version)).identity == version.identity
    assert verifier.verified == {(version.collection_id, version.number)}
    labels = {"collection": NAME, "version": "1"}
    assert REGISTRY.get_sample_value("azimuth_canary_cosine", labels) == pytest.approx(1.0, abs=1e-5)


async def test_another_model_is_refused_naming_what_differs(place: Place) -> None:
    version = await place.version()
    verifier = place.verifier(lambda _: HashingEncoder(EmbedderSpec(model="hashing:64")))
    with pytest.raises(SpaceRefused, match="dimensions"):
        await verifier.ensure(version)
    assert verifier.verified == frozenset()


@pytest.mark.parametrize("encoder", [Rotated, Broken])
async def test_the_same_fingerprint_with_other_vectors_is_refused_by_the_canary(
    place: Place, encoder: type[HashingEncoder]
) -> None:
    version = await place.version()
    with pytest.raises(SpaceRefused, match="canary"):
        await place.verifier(encoder).ensure(version)


async def test_a_model_without_usable_vectors_is_not_registered(place: Place) -> None:
    with pytest.raises(Invalid, match="unusable"):
        await place.verifier(Broken).register(EmbedderSpec())


async def test_a_model_that_is_no_longer_allowed_is_refused(place: Place) -> None:
    version = await place.version()
    with pytest.raises(ModelUnavailable, match="once/allowed"):
        await place.verifier().ensure(replace(version, spec=EmbedderSpec(model="once/allowed")))


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
    verifier = place.verifier(shop.load)
    version = await place.version(verifier)
    await verifier.ensure(version)
    await verifier.reverify_all()
    assert shop.loads == 1, "what did not change is not loaded again"

    shop.stock = 64
    await verifier.ensure(version)  # until the next look it is the right model that answers
    await verifier.reverify_all()
    for _ in range(2):
        with pytest.raises(SpaceRefused, match="dimensions"):
            await verifier.ensure(version)
        assert shop.loads == 2, "a refusal is remembered for a while"

    shop.stock = 32
    assert (await verifier.reverify(version)).identity == version.identity
    await verifier.ensure(version)


async def test_what_is_retired_is_forgotten(place: Place) -> None:
    version, verifier = await place.version(), place.verifier()
    await verifier.ensure(version)
    place.collections.versions.clear()
    await verifier.reverify_all()
    assert verifier.verified == frozenset()
