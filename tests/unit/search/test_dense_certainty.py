import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from service.core.collections import ChunkingSettings, Collection, CollectionSettings, EmbedderSpec
from service.core.ids import CollectionId, CollectionName, DocumentId, Vector, VersionNumber
from service.core.versions import EmbedderIdentity, EmbedderVersion, SpaceStatus, VectorSample, VersionState
from service.search import dense_certainty
from service.search.dense_certainty import DenseCertainty, certainty
from service.spaces.resolver import Space
from tests.fakes import FakeStore, FakeVectors

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHANCE = np.random.default_rng(3).normal(0.1, 0.05, 500)


def test_what_chance_would_give_is_not_certain_and_what_stands_out_is() -> None:
    mean, deviation = float(CHANCE.mean()), float(CHANCE.std())
    ratios = (
        0.0,
        dense_certainty.Z_CHANCE,
        (dense_certainty.Z_CHANCE + dense_certainty.Z_CERTAIN) / 2,
        dense_certainty.Z_CERTAIN,
        9.0,
    )
    found = [certainty(mean + ratio * deviation, CHANCE) for ratio in ratios]
    assert found == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])


def test_it_does_not_depend_on_where_the_cosines_of_an_embedder_lie() -> None:
    """Such as one whose texts all lie in a narrow cone."""
    for best in (0.2, 0.25, 0.29):
        assert certainty(0.8 + 0.1 * best, 0.8 + 0.1 * CHANCE) == pytest.approx(certainty(best, CHANCE))


def test_a_small_sample_says_nothing_and_one_without_spread_all() -> None:
    assert certainty(0.0, CHANCE[: dense_certainty.MIN_SAMPLE_SIZE - 1]) == 1.0
    same = np.full(100, 0.5)
    assert (certainty(0.9, same), certainty(0.5, same)) == (1.0, 0.0)


class Drawn(FakeVectors):
    """Random directions; counts how often they are drawn."""

    draws = 0

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        self.draws += 1
        rows = np.random.default_rng(7).normal(size=(size, 64)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return VectorSample(chunks=tuple((DocumentId(str(at)), 0) for at in range(size)), vectors=rows)


def space(rows: int) -> Space:
    spec, identity = EmbedderSpec(model="m"), EmbedderIdentity(parts={}, dimensions=64, max_tokens=256)
    version = EmbedderVersion(
        collection_id=CollectionId(1),
        number=VersionNumber(1),
        state=VersionState.ACTIVE,
        spec=spec,
        chunking=ChunkingSettings(),
        identity=identity,
        fingerprint=identity.fingerprint,
        canary={},
        created_at=NOW,
    )
    collection = Collection(
        id=CollectionId(1),
        name=CollectionName("c"),
        settings=CollectionSettings(embedder=spec),
        active_version=VersionNumber(1),
        created_at=NOW,
    )
    return Space(
        collection=collection,
        version=version,
        status=SpaceStatus(rows=rows, indexed=False, chunks_per_document=1.0),
    )


def vector(values: Sequence[float]) -> Vector:
    return np.array([*values, *[0.0] * (64 - len(values))], np.float32)


async def test_random_chunks_are_drawn_once_until_there_are_many_more_or_time_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = Drawn(FakeStore())
    known = DenseCertainty(drawn)
    for rows in (1_000, 1_000, 1_900):
        assert await known.certainty(space(rows), vector([1.0]), 0.9) == 1.0
        assert await known.certainty(space(rows), vector([1.0]), 0.0) == 0.0
    assert drawn.draws == 1
    await known.certainty(space(2_000), vector([1.0]), 0.9)
    assert drawn.draws == 2
    later = time.monotonic() + dense_certainty.SAMPLE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    await known.certainty(space(2_000), vector([1.0]), 0.9)
    assert drawn.draws == 3


async def test_a_space_with_hardly_anything_in_it_is_trusted_and_only_so_many_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dense_certainty, "MAX_SAMPLES", 2)
    drawn = Drawn(FakeStore())
    known = DenseCertainty(drawn)
    assert await known.certainty(space(dense_certainty.MIN_SAMPLE_SIZE - 1), vector([1.0]), 0.0) == 1.0
    assert drawn.draws == 0
    here = space(1_000)
    spaces = [replace(here, version=replace(here.version, number=VersionNumber(number))) for number in (1, 2, 3, 1)]
    for one in spaces:
        await known.certainty(one, vector([1.0]), 0.5)
    assert drawn.draws == 4, "the first was let go of for the third"
