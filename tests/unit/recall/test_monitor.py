"""The recall monitor: which live searches it samples, what probes cost, and where their results go."""

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from unittest.mock import AsyncMock

import pytest
from prometheus_client import REGISTRY

from service.core import metrics
from service.core.errors import DatabaseUnavailable
from service.core.filters import parse
from service.core.ids import CollectionId, CollectionName
from service.core.recall import RecallMinute
from service.core.search import DensePlan, FilterMatch, Query, SearchRequest
from service.recall import monitor
from service.recall.aggregate import RETENTION, WINDOW, RecallAggregator, RecallSample
from service.recall.dense_probe import DenseProbe, ProbedQuery
from service.recall.lexical_probe import LexicalProbe
from service.recall.monitor import FRESH_SECONDS, LEXICAL_SECONDS, RecallMonitor
from service.search.events import SearchEvent
from service.spaces.resolver import Space
from tests.fakes import FakeLexicon
from tests.lossy_index import LossyCollection, WordTruth, lossy_collection
from tests.running import running, until
from tests.world import NOW, World, doc

EXACT = DensePlan(kind="exact")
HNSW_LABELS = {"version": "1", "plan": "hnsw", "band": "all"}


@dataclasses.dataclass
class Scene:
    """`seconds`: the monotonic clock. `moment`: the wall clock, since `NOW`."""

    collection: LossyCollection
    seconds: float = 1_000.0
    moment: timedelta = timedelta()

    @property
    def world(self) -> World:
        return self.collection.world

    def monitor(self, share: float = 1.0, budget_ms: float = 600.0, probe: DenseProbe | None = None) -> RecallMonitor:
        of, documents = self.collection, self.world.documents
        assert self.world.fake is not None
        return RecallMonitor(
            dense_probe=probe or of.dense_probe(),
            lexical_probe=LexicalProbe(
                lexicon=FakeLexicon(self.world.fake), truth=WordTruth(), vectors=of.vectors, documents=documents
            ),
            spaces=of.spaces,
            aggregator=RecallAggregator(self.world.recalls, lambda: NOW + self.moment),
            share=share,
            budget_ms=budget_ms,
            rng=of.rng,
            clock=lambda: self.seconds,
        )

    def costly(self, seconds: float) -> DenseProbe:
        """Each probe takes so many seconds."""
        scene = self

        class CostlyProbe(DenseProbe):
            async def probe(self, query: ProbedQuery, recent: Space | None) -> tuple[RecallSample, ...] | None:
                scene.seconds += seconds
                return await super().probe(query, recent)

        return CostlyProbe(**vars(self.collection.dense_probe()))

    async def flushed(self, monitor: RecallMonitor) -> tuple[RecallMinute, ...]:
        """What all processes see after a flush."""
        await monitor.flush()
        return await self.world.recalls.since(self.world.collection.id, NOW - RETENTION)

    def rename(self, name: str) -> str:
        """The collection of the events from now on: metrics are of the whole process."""
        collection = dataclasses.replace(self.collection.space.collection, name=CollectionName(name))
        self.collection.space = dataclasses.replace(self.collection.space, collection=collection)
        return name


@pytest.fixture
async def scene() -> Scene:
    return Scene(await lossy_collection())


async def probe_all(monitor: RecallMonitor, *events: SearchEvent) -> None:
    """Each search is probed before the next one comes."""
    for event in events:
        monitor.on_search(event)
        assert await monitor.probe_next() is not None


def exported(metric: str, collection: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(metric, {"collection": collection, **labels})


@pytest.mark.parametrize(("share", "budget_ms", "searches"), [(1.0, 600.0, 0), (0.0, 600.0, 1), (1.0, 0.0, 1)])
async def test_without_searches_a_share_or_a_budget_nothing_is_sampled(
    scene: Scene, share: float, budget_ms: float, searches: int
) -> None:
    of = scene.monitor(share=share, budget_ms=budget_ms)
    for event in (scene.collection.event(), scene.collection.event(EXACT)) * searches:
        of.on_search(event)
    assert await of.probe_next() is None
    assert await scene.flushed(of) == ()


async def test_an_error_of_sampling_does_not_reach_the_search(scene: Scene) -> None:
    of, event = scene.monitor(), scene.collection.event()
    of.on_search(dataclasses.replace(event, vectors=("no vector",)))  # type: ignore[arg-type]
    await probe_all(of, event)
    assert [minute.stats.queries for minute in await scene.flushed(of)] == [1]


async def test_about_a_share_of_the_searches_is_sampled(scene: Scene) -> None:
    of = scene.monitor(share=0.25)
    for _ in range(2_000):
        of.on_search(scene.collection.event(EXACT))
    (minute,) = await scene.flushed(of)
    assert 400 < minute.stats.queries < 600


async def test_a_search_that_ran_exactly_is_counted_and_not_probed(scene: Scene) -> None:
    of = scene.monitor()
    of.on_search(scene.collection.event(DensePlan(kind="exact", selectivity=0.001, reason="few_pass")))
    assert await of.probe_next() is None
    (minute,) = await scene.flushed(of)
    series, stats = minute.series, minute.stats
    assert (series.plan, series.band, stats.queries, stats.mean) == ("exact", "narrow", 1, 1.0)


async def test_of_several_queries_one_is_probed(scene: Scene) -> None:
    of = scene.monitor()
    request = SearchRequest(mode="dense", queries=(Query(text="a"), Query(text="b")))
    await probe_all(of, scene.collection.event(request=request))
    assert [minute.stats.queries for minute in await scene.flushed(of)] == [1]


@pytest.mark.parametrize("seconds", [0.01, 0.5, 20.0])
async def test_probes_take_no_more_of_a_minute_than_their_budget(scene: Scene, seconds: float) -> None:
    of = scene.monitor(budget_ms=600.0, probe=scene.costly(seconds))
    began = scene.seconds
    for _ in range(20):
        of.on_search(scene.collection.event())
        rest = await of.probe_next()
        assert rest is not None
        scene.seconds += rest
    assert 20 * seconds / (scene.seconds - began) == pytest.approx(0.01)


async def test_a_failed_probe_costs_as_well(scene: Scene) -> None:
    of = scene.monitor(probe=scene.costly(2.0))
    scene.collection.vectors.failing = DatabaseUnavailable("it does not answer")
    of.on_search(scene.collection.event())
    assert await of.probe_next() == pytest.approx(2.0 * 99)


async def test_one_search_is_probed_at_a_time_and_stopping_flushes_the_rest(scene: Scene) -> None:
    under_way, most, probes = 0, 0, 0

    async def meanwhile() -> None:
        nonlocal under_way, most, probes
        under_way += 1
        most, probes = max(most, under_way), probes + 1
        await asyncio.sleep(0)
        under_way -= 1
        scene.collection.vectors.meanwhile = meanwhile

    scene.collection.vectors.meanwhile = meanwhile
    of = scene.monitor(budget_ms=60_000.0)
    async with running(of.run):
        for _ in range(20):
            of.on_search(scene.collection.event())
        await until(lambda: probes >= 3)
    assert most == 1
    recalls = await scene.world.recalls.since(scene.world.collection.id, NOW)
    assert sum(minute.stats.queries for minute in recalls) >= 3


async def test_a_search_that_comes_while_it_idles_is_probed_at_once(scene: Scene) -> None:
    of = scene.monitor(budget_ms=60_000.0)
    probed = asyncio.Event()

    scene.collection.vectors.meanwhile = AsyncMock(side_effect=probed.set)
    async with running(of.run):
        await asyncio.sleep(0)
        of.on_search(scene.collection.event())
        await asyncio.wait_for(probed.wait(), monitor.IDLE_SECONDS * 0.8)


async def test_samples_are_summed_by_the_minute_and_exported(scene: Scene) -> None:
    of, name = scene.monitor(), scene.rename("added-up")
    scene.collection.vectors.lost = frozenset(f"d{number:02}" for number in range(10))
    for seconds in (1, 59, 61):
        scene.moment = timedelta(seconds=seconds)
        await probe_all(of, scene.collection.event())
    first, second = minutes = await scene.flushed(of)
    assert [(one.at, one.stats.queries) for one in minutes] == [(NOW, 2), (NOW + timedelta(minutes=1), 1)]
    mean = (first.stats + second.stats).mean
    assert 0 < mean < 1
    assert exported("azimuth_recall_at_k", name, **HNSW_LABELS) == pytest.approx(mean)
    assert exported("azimuth_recall_samples_total", name, **HNSW_LABELS) == 3
    scene.moment = WINDOW + timedelta(minutes=3)
    await of.flush()
    assert exported("azimuth_recall_at_k", name, **HNSW_LABELS) is None, "the samples are too old"


async def test_of_a_deleted_collection_nothing_is_exported_again(scene: Scene) -> None:
    of, name = scene.monitor(), scene.rename("deleted")
    of.on_search(scene.collection.event(EXACT))
    await of.flush()
    labels = {**HNSW_LABELS, "plan": "exact"}
    assert exported("azimuth_recall_at_k", name, **labels) == 1.0
    metrics.remove_collection(name)
    await of.flush()
    assert exported("azimuth_recall_at_k", name, **labels) is None


async def test_what_is_tried_besides_is_stored_and_not_exported(scene: Scene) -> None:
    of = scene.monitor(probe=scene.collection.dense_probe(lower_step=lambda _: 10))
    name = scene.rename("tried-besides")
    await probe_all(of, scene.collection.event())
    assert [minute.series.ef_search for minute in await scene.flushed(of)] == [10, 200]
    assert exported("azimuth_recall_samples_total", name, **HNSW_LABELS) == 1


async def test_a_probe_during_a_write_is_left_out(scene: Scene) -> None:
    of, event = scene.monitor(), scene.collection.event()
    (vector,) = event.vectors
    assert vector is not None
    scene.collection.vectors.meanwhile = lambda: scene.world.put_and_store({"new": vector[None, :]})
    torn = partial(REGISTRY.get_sample_value, "azimuth_probes_total", {"outcome": "torn"})
    before = torn() or 0.0
    await probe_all(of, event)
    assert (await scene.flushed(of), torn()) == ((), before + 1)


async def test_a_probe_long_after_the_search_uses_the_current_space(scene: Scene) -> None:
    of = scene.monitor()
    request = SearchRequest(text="w", mode="dense", where=parse({"kind": "thing"}))
    of.on_search(scene.collection.event(request=request, filter_match=FilterMatch(ids=None, count=30, total=30)))
    scene.seconds += FRESH_SECONDS
    await of.probe_next()
    assert await scene.flushed(of) == (), "so few documents are listed, and scanned exactly"


async def test_remembered_searches_are_probed_where_none_comes(scene: Scene) -> None:
    of = scene.monitor()
    for _ in range(3):
        of.on_search(scene.collection.event())
    for _ in range(3):
        scene.seconds += 60
        assert await of.probe_next() is not None
    assert await of.probe_next() is None
    assert sum(minute.stats.queries for minute in await scene.flushed(of)) == 3


async def test_searches_of_a_deleted_collection_are_forgotten(scene: Scene) -> None:
    of = scene.monitor()
    for _ in range(3):
        of.on_search(scene.collection.event())
    await scene.world.collections.delete(scene.world.collection.id)
    scene.collection.spaces.forget()
    scene.seconds += FRESH_SECONDS
    assert await of.probe_next() is not None
    assert await of.probe_next() is None


async def test_it_goes_on_after_errors_of_any_kind(scene: Scene) -> None:
    of = scene.monitor()
    for failure in (DatabaseUnavailable("it does not answer"), ZeroDivisionError(), None):
        scene.collection.vectors.failing = failure
        await probe_all(of, scene.collection.event())
    assert [minute.stats.queries for minute in await scene.flushed(of)] == [1]


async def test_words_are_probed_now_and_then(scene: Scene) -> None:
    of, name = scene.monitor(), scene.collection.space.collection.name
    await scene.world.put(*(doc(f"d{number:02}", f"number {number}") for number in range(30)))
    for text in ("number", "number 3"):
        of.on_search(scene.collection.event(DensePlan(), SearchRequest(text=text, mode="lexical")))
    assert await of.probe_next() is not None
    assert await of.probe_next() is None, "not so soon again, and there is no vector to probe with"
    scene.seconds += LEXICAL_SECONDS
    assert await of.probe_next() is not None
    (minute,) = await scene.flushed(of)
    assert (minute.series.leg, minute.stats.queries) == ("lexical", 2)
    assert exported("azimuth_lexical_recall_at_k", name) == pytest.approx(minute.stats.mean)


@dataclasses.dataclass
class UnwritableOnce:
    """Recalls that cannot be written at first. `deleted_before`: the moments of deletions."""

    world: World
    refused: bool = False
    deleted_before: list[object] = dataclasses.field(default_factory=list)

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        if not self.refused:
            self.refused = True
            raise DatabaseUnavailable("it does not answer")
        await self.world.recalls.add(collection_id, minutes)

    async def delete_before(self, before: object) -> int:
        self.deleted_before.append(before)
        return 0


async def test_what_cannot_be_written_is_written_later_and_once(scene: Scene) -> None:
    of = scene.monitor()
    of.aggregator = RecallAggregator(UnwritableOnce(scene.world), lambda: NOW)  # type: ignore[arg-type]
    of.on_search(scene.collection.event(EXACT))
    assert await scene.flushed(of) == ()
    of.on_search(scene.collection.event(EXACT))
    await of.flush()
    assert [minute.stats.queries for minute in await scene.flushed(of)] == [2]


async def test_old_minutes_are_deleted_once_an_hour(scene: Scene) -> None:
    of, recalls = scene.monitor(), UnwritableOnce(scene.world)
    of.aggregator = RecallAggregator(recalls, lambda: NOW)  # type: ignore[arg-type]
    for _ in range(3):
        await of.flush()
    assert recalls.deleted_before == [NOW - RETENTION]
    scene.seconds += monitor.RETENTION_SECONDS
    await of.flush()
    assert len(recalls.deleted_before) == 2
