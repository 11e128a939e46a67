"""What drift keeps of live queries: the latest, a sample of those before, bounded, and only those that count."""

import dataclasses
import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from service.core.examples import Example, Like
from service.core.ids import CollectionId, Vector, VersionNumber
from service.core.search import Confidence, DensePlan, FilterMatch, Query, SearchRequest
from service.core.versions import SpaceStatus
from service.drift import query_window
from service.drift.query_window import MIN_LATEST, SAMPLE_SIZE, QueryWindow, QueryWindows, WindowedQuery
from service.search.events import SearchEvent
from service.spaces.resolver import Space
from tests.world import World, build, unit

VECTOR = unit(1, 2, 3, 4)


def numbered(number: int) -> WindowedQuery:
    return WindowedQuery(
        vector=VECTOR.astype(np.float16), cosine=float(number), in_domain=0.5, text=f"query {number}", syntax="wishes"
    )


def numbers(some: Sequence[WindowedQuery]) -> list[int]:
    return [int(one.cosine) for one in some if one.cosine is not None]


def filled(queries: int, *, every: float = 1.0, seconds: float = 1e-9) -> QueryWindow:
    """A window after one query each `every` seconds; the number says when."""
    window = QueryWindow(seconds, random.Random(1))
    for number in range(queries):
        if window.wants(number * every):
            window.add(numbered(number), number * every)
    return window


@pytest.mark.parametrize(("queries", "moved"), [(MIN_LATEST, 0), (2 * MIN_LATEST, MIN_LATEST), (300, 150)])
def test_the_latest_are_half_of_all_until_there_are_enough(queries: int, moved: int) -> None:
    window = filled(queries)
    assert numbers(window.latest) == [*range(moved, queries)]
    assert numbers(window.earlier) == [*range(moved)]


def test_both_samples_are_bounded_and_all_are_counted() -> None:
    window = filled(5 * SAMPLE_SIZE)
    assert (len(window.latest), len(window.earlier), window.seen) == (SAMPLE_SIZE, SAMPLE_SIZE, 5 * SAMPLE_SIZE)
    assert numbers(window.latest) == [*range(4 * SAMPLE_SIZE, 5 * SAMPLE_SIZE)]


def test_the_earlier_ones_are_spread_over_the_time_that_there_was() -> None:
    earlier = filled(21 * SAMPLE_SIZE).earlier
    parts = np.histogram(numbers(earlier), bins=4, range=(0, 20 * SAMPLE_SIZE))[0]
    assert parts.min() > SAMPLE_SIZE / 4 / 2
    assert parts.max() < SAMPLE_SIZE / 4 * 2


def test_what_is_older_than_some_days_is_forgotten() -> None:
    every = query_window.DAY / SAMPLE_SIZE / 10
    window = filled(10 * SAMPLE_SIZE * 5, every=every)  # five days, ten times as many as are kept a day
    old = sum(number * every < query_window.DAY for number in numbers(window.earlier))
    assert old < SAMPLE_SIZE / 10


def test_of_many_queries_the_latest_span_the_time_that_they_should() -> None:
    window = filled(50_000, every=0.01, seconds=100.0)  # 500 seconds
    times = [number * 0.01 for number in numbers(window.latest)]
    assert times[-1] - times[0] == pytest.approx(100.0, rel=0.05)
    assert window.seen == 50_000


def test_texts_are_let_go_with_the_latest() -> None:
    window = filled(300)
    assert {one.text for one in window.earlier} == {""}
    assert all(one.text for one in window.latest)


async def event(
    world: World,
    vectors: tuple[Vector | None, ...] = (VECTOR,),
    filter_match: FilterMatch | None = None,
    version: int = 1,
    **changes: object,
) -> SearchEvent:
    searched = world.version if version == 1 else await world.add_version(version, world.version.state)
    status = SpaceStatus(rows=10, indexed=False, chunks_per_document=1.0)
    return SearchEvent(
        space=Space(collection=world.collection, version=searched, status=status),
        request=SearchRequest(**{"text": "sort a list", **changes}),  # type: ignore[arg-type]
        vectors=vectors,
        plan=DensePlan(kind="exact"),
        filter_match=filter_match,
        width=100,
        confidence=Confidence(in_domain=0.9),
        best_cosine=0.7,
        best_bm25=3.0,
    )


@pytest.mark.parametrize(
    ("filter_match", "scores"), [(None, (0.7, 0.9)), (FilterMatch(ids=(), count=0, total=10), (None, None))]
)
async def test_a_query_is_kept_with_its_scores_unless_it_is_filtered(
    filter_match: FilterMatch | None, scores: tuple[float | None, float | None]
) -> None:
    world, windows = await build(None), QueryWindows(600.0)
    windows.on_search(await event(world, filter_match=filter_match))
    (one,) = windows[world.collection.id, VersionNumber(1)].latest
    assert (one.text, one.cosine, one.in_domain, one.words) == ("sort a list", *scores, None)
    assert one.vector.dtype == np.float16
    assert one.vector == pytest.approx(VECTOR, abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"vectors": (None,)},
        {"vectors": (VECTOR, VECTOR), "queries": (Query(text="a"), Query(text="b"))},
        {"text": "", "like": Like(positive=(Example(text="a"),))},
        {"version": 2},
    ],
    ids=["no vector", "several questions", "examples", "another version"],
)
async def test_what_does_not_count_is_left_out(changes: dict[str, object]) -> None:
    world, windows = await build(None), QueryWindows(600.0)
    windows.on_search(await event(world, **changes))  # type: ignore[arg-type]
    assert not windows


async def test_only_some_collections_and_beginnings_of_texts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_window, "MAX_COLLECTIONS", 1)
    first, windows = await build(None), QueryWindows(600.0)
    second = await build(None)
    second.collection = dataclasses.replace(second.collection, id=CollectionId(77))
    windows.on_search(await event(first))
    windows.on_search(await event(second, text="x" * 10_000))
    ((key, window),) = windows.items()
    assert key[0] == 77
    assert len(window.latest[0].text) == query_window.MAX_TEXT_LENGTH


def test_a_query_takes_about_a_kilobyte() -> None:
    one = dataclasses.replace(numbered(1), vector=np.zeros(384, np.float16), words=(1, 7))
    assert sys.getsizeof(one.vector) + sys.getsizeof(one) < 1_500
