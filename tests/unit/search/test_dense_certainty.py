import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.core.ids import DocumentId
from service.core.versions import EmbedderVersion, SpaceStatus, VectorSample
from service.search import dense_certainty
from service.search.dense_certainty import MIN_SAMPLE_SIZE, Z_CERTAIN, Z_CHANCE, DenseCertainty, certainty
from service.spaces.resolver import Space
from tests.fakes import FakeStore, FakeVectors

CHANCE = np.random.default_rng(3).normal(0.1, 0.05, 500)
QUERY = np.eye(1, 64, dtype=np.float32)[0]


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0, 0), (Z_CHANCE, 0), ((Z_CHANCE + Z_CERTAIN) / 2, 0.5), (Z_CERTAIN, 1), (9, 1)]
)
def test_what_chance_would_give_is_not_certain_and_what_stands_out_is(ratio: float, expected: float) -> None:
    assert certainty(float(CHANCE.mean()) + ratio * float(CHANCE.std()), CHANCE) == pytest.approx(expected)


@pytest.mark.parametrize("best", [0.2, 0.25, 0.29])
def test_it_does_not_depend_on_where_the_cosines_of_an_embedder_lie(best: float) -> None:
    """Such as one whose texts all lie in a narrow cone."""
    assert certainty(0.8 + 0.1 * best, 0.8 + 0.1 * CHANCE) == pytest.approx(certainty(best, CHANCE))


def test_a_small_sample_says_nothing_and_one_without_spread_all() -> None:
    assert certainty(0.0, CHANCE[: MIN_SAMPLE_SIZE - 1]) == 1.0
    same = np.full(100, 0.5)
    assert (certainty(0.9, same), certainty(0.5, same)) == (1.0, 0.0)


class RandomVectors(FakeVectors):
    """Random directions; counts the samples."""

    samples = 0

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        self.samples += 1
        rows = np.random.default_rng(7).normal(size=(size, 64)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return VectorSample(chunks=tuple((DocumentId(str(at)), 0) for at in range(size)), vectors=rows)


def space(rows: int, number: int = 1) -> Space:
    version: Any = SimpleNamespace(collection_id=1, number=number)
    status = SpaceStatus(rows=rows, indexed=False, chunks_per_document=1.0)
    return Space(collection=None, version=version, status=status)  # type: ignore[arg-type]


async def test_random_chunks_are_drawn_once_until_there_are_many_more_or_time_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = RandomVectors(FakeStore())
    known = DenseCertainty(vectors)
    for rows in (1_000, 1_000, 1_900):
        assert [await known.certainty(space(rows), QUERY, best) for best in (0.9, 0.0)] == [1.0, 0.0]
    assert vectors.samples == 1
    await known.certainty(space(2_000), QUERY, 0.9)
    assert vectors.samples == 2
    later = time.monotonic() + dense_certainty.SAMPLE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    await known.certainty(space(2_000), QUERY, 0.9)
    assert vectors.samples == 3


async def test_the_floor_is_where_texts_lie_that_have_nothing_in_common() -> None:
    class Cone(RandomVectors):
        async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
            drawn = await super().sample(version, size)
            return VectorSample(chunks=drawn.chunks, vectors=drawn.vectors / 4 + 0.75 * QUERY)

    assert await DenseCertainty(RandomVectors(FakeStore())).floor(space(1_000), QUERY) == 0.0
    assert await DenseCertainty(Cone(FakeStore())).floor(space(1_000), QUERY) == pytest.approx(0.69, abs=0.01)
    assert await DenseCertainty(Cone(FakeStore())).floor(space(MIN_SAMPLE_SIZE - 1), QUERY) == 0.0


async def test_a_space_with_hardly_anything_in_it_is_trusted_and_only_so_many_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dense_certainty, "MAX_SAMPLES", 2)
    vectors = RandomVectors(FakeStore())
    known = DenseCertainty(vectors)
    assert await known.certainty(space(MIN_SAMPLE_SIZE - 1), QUERY, 0.0) == 1.0
    assert vectors.samples == 0
    for number in (1, 2, 3, 1):
        await known.certainty(space(1_000, number), QUERY, 0.5)
    assert vectors.samples == 4, "the first was let go of for the third"
