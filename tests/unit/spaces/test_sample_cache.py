"""What is sampled is remembered: for a time, up to a growth, of so many keys, and computed once for all who ask."""

import asyncio
from unittest.mock import AsyncMock

import pytest

from service.spaces.sample_cache import CachedSample, SampleCache


class Scene:
    def __init__(self, capacity: int = 2) -> None:
        self.now, self.computed = 0.0, 0
        self.cache = SampleCache[str, int](seconds=10.0, growth=2.0, capacity=capacity, clock=lambda: self.now)

    async def value(self, key: str = "a", rows: int = 100) -> int:
        return await self.cache.get_or_compute(key, self._compute, rows)

    async def _compute(self) -> int:
        self.computed += 1
        number = self.computed
        await asyncio.sleep(0)
        return number


@pytest.mark.parametrize(
    ("seconds", "rows", "value"), [(9.9, 100, 1), (10.0, 100, 2), (0, 199, 1), (0, 200, 2), (0, 50, 2)]
)
async def test_a_value_is_outdated_by_time_and_by_growth(seconds: float, rows: int, value: int) -> None:
    scene = Scene()
    assert await scene.value() == 1
    scene.now = seconds
    assert await scene.value(rows=rows) == value


async def test_callers_at_once_share_one_computation_and_each_key_has_its_own() -> None:
    scene = Scene()
    assert tuple(await asyncio.gather(scene.value(), scene.value(), scene.value("b"))) == (1, 1, 2)


async def test_so_many_keys_are_remembered_and_any_can_be_forgotten() -> None:
    scene = Scene(capacity=2)
    for key in ("a", "b", "c"):
        await scene.value(key)
    assert [scene.cache.get(key, 100) for key in ("a", "b", "c")] == [None, 2, 3]
    scene.cache.forget("b")
    scene.cache.forget("b")
    assert scene.cache.entry("b") is None


async def test_a_failure_is_told_and_an_outdated_value_can_still_be_had() -> None:
    scene = Scene()
    await scene.value()
    scene.now = 11.0

    with pytest.raises(ValueError, match="no"):
        await scene.cache.get_or_compute("a", AsyncMock(side_effect=ValueError("no")), 100)
    assert scene.cache.entry("a") == CachedSample(value=1, rows=100, computed_at=0.0)
    assert await scene.value() == 2


async def test_a_caller_that_leaves_does_not_take_the_value_from_the_others() -> None:
    """Otherwise callers that are more impatient than the computation is long would begin it again and again."""
    scene, go = Scene(), asyncio.Event()

    async def slow() -> int:
        scene.computed += 1
        await go.wait()
        return 7

    async def impatient() -> int:
        async with asyncio.timeout(0.01):
            return await scene.cache.get_or_compute("a", slow, 100)

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await impatient()
    go.set()
    assert await scene.cache.get_or_compute("a", slow, 100) == 7
    assert scene.computed == 1


async def test_a_failure_is_that_of_all_who_wait_and_the_next_begins_anew() -> None:
    scene = Scene()
    fails = AsyncMock(side_effect=ValueError("no"))
    calls = [scene.cache.get_or_compute("a", fails, 100) for _ in range(5)]
    assert [str(one) for one in await asyncio.gather(*calls, return_exceptions=True)] == ["no"] * 5
    assert fails.await_count == 1
    assert await scene.value() == 1


@pytest.mark.parametrize(("age", "kept"), [(19.9, True), (20.0, False)])
async def test_what_expired_long_ago_is_removed_when_another_is_computed(age: float, kept: bool) -> None:
    scene = Scene(capacity=100)
    await scene.value("a")
    scene.now = age
    await scene.value("b")
    assert (scene.cache.entry("a") is not None) == kept
