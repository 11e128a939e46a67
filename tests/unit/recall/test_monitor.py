"""The truth's story: what is kept of live searches, what looks cost, and where their findings go."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from service.core import metrics
from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.errors import DatabaseUnavailable
from service.core.filters import parse
from service.core.ids import CollectionId, CollectionName
from service.core.ports.lexicon import TermCounts
from service.core.query_syntax import ParsedQuery
from service.core.recall import RecallMinute
from service.core.search import DensePlan, FilterMatch, Query, SearchRequest
from service.recall import monitor as watch
from service.recall.aggregate import RETENTION, WINDOW, RecallAggregator, RecallSample
from service.recall.dense_probe import DenseProbe, ProbedQuery
from service.recall.lexical_probe import LexicalProbe
from service.recall.monitor import FRESH_SECONDS, LEXICAL_SECONDS, RecallMonitor
from service.spaces.resolver import Space
from tests.fakes import FakeLexicon
from tests.running import running
from tests.watched import Watched, watched
from tests.world import NOW, doc

HYBRID = SearchRequest(text="number three")
HNSW = DensePlan(kind="hnsw", ef_search=200)


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


class WordTruth:
    """As the fake lexicon scores."""

    async def term_counts(self, collection: Collection, documents: Sequence[StoredDocument]) -> tuple[TermCounts, ...]:
        return tuple(
            TermCounts(
                document_id=one.id,
                content_revision=one.content_revision,
                counts=dict.fromkeys(one.text.lower().split(), 1),
                length=len(one.text.split()),
            )
            for one in documents
        )

    async def exact_scores(
        self, collection: Collection, words: ParsedQuery, bags: Sequence[TermCounts]
    ) -> tuple[float, ...]:
        wanted = set(words.text.lower().split())
        return tuple(float(len(wanted & one.counts.keys())) for one in bags)


@dataclasses.dataclass
class Scene:
    watched: Watched
    clock: Clock
    moments: list[timedelta]

    def watch(self, *, share: float = 1.0, budget_ms: float = 600.0, probe: DenseProbe | None = None) -> RecallMonitor:
        of = self.watched
        return RecallMonitor(
            dense_probe=probe or of.probe(),
            lexical_probe=LexicalProbe(
                lexicon=self.lexicon,
                truth=WordTruth(),
                vectors=of.vectors,
                documents=of.world.documents,
                clock=self.clock,
            ),
            spaces=of.spaces,
            aggregator=RecallAggregator(of.world.recalls, lambda: NOW + self.moments[-1]),
            share=share,
            budget_ms=budget_ms,
            chance=of.chance,
            clock=self.clock,
        )

    @property
    def lexicon(self) -> FakeLexicon:
        assert self.watched.world.fake is not None
        return FakeLexicon(self.watched.world.fake)

    async def minutes(self) -> tuple[RecallMinute, ...]:
        return await self.watched.world.recalls.since(self.watched.world.collection.id, NOW - RETENTION)

    def at(self, moment: timedelta) -> None:
        self.moments.append(moment)

    def rename(self, name: str) -> str:
        """The collection of what is observed from now on: metrics are of the whole process."""
        collection = dataclasses.replace(self.watched.space.collection, name=CollectionName(name))
        self.watched.space = dataclasses.replace(self.watched.space, collection=collection)
        return name


@pytest.fixture
async def scene() -> Scene:
    return Scene(await watched(), Clock(), [timedelta()])


class Costly(DenseProbe):
    """Each look takes so many seconds."""

    def __init__(self, of: DenseProbe, clock: Clock, seconds: float) -> None:
        self.__dict__.update(of.__dict__)
        self._clock, self._seconds = clock, seconds

    async def probe(self, query: ProbedQuery, recent: Space | None) -> tuple[RecallSample, ...] | None:
        self._clock.seconds += self._seconds
        return await super().probe(query, recent)


def shown(metric: str, collection: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(metric, {"collection": collection, **labels})


# ---------------------------------------------------------------- what is kept


async def test_where_nothing_was_asked_nothing_is_looked_at(scene: Scene) -> None:
    of = scene.watch()
    assert await of.step() is None
    await of.flush()
    assert await scene.minutes() == ()


@pytest.mark.parametrize(("share", "budget_ms"), [(0.0, 600.0), (1.0, 0.0)])
async def test_without_a_share_or_a_budget_nothing_is_kept(scene: Scene, share: float, budget_ms: float) -> None:
    of = scene.watch(share=share, budget_ms=budget_ms)
    of.on_search(scene.watched.observed())
    of.on_search(scene.watched.observed(DensePlan(kind="exact")))
    assert await of.step() is None
    await of.flush()
    assert await scene.minutes() == ()


async def test_what_cannot_be_kept_is_no_trouble_of_the_search(scene: Scene) -> None:
    of, odd = scene.watch(), scene.watched.observed()
    of.on_search(dataclasses.replace(odd, vectors=("no vector",)))  # type: ignore[arg-type]
    of.on_search(odd)
    assert await of.step() is not None
    await of.flush()
    assert [minute.stats.queries for minute in await scene.minutes()] == [1]


async def test_about_a_share_of_the_searches_is_kept(scene: Scene) -> None:
    of = scene.watch(share=0.25)
    for _ in range(2_000):
        of.on_search(scene.watched.observed(DensePlan(kind="exact")))
    await of.flush()
    (counted,) = [minute.stats.queries for minute in await scene.minutes()]
    assert 400 < counted < 600


async def test_a_search_that_ran_exactly_is_counted_and_not_looked_at(scene: Scene) -> None:
    of = scene.watch()
    plan = DensePlan(kind="exact", selectivity=0.001, reason="few_pass")
    of.on_search(scene.watched.observed(plan))
    assert await of.step() is None
    await of.flush()
    (minute,) = await scene.minutes()
    assert (minute.series.plan, minute.series.band, minute.stats.queries) == ("exact", "narrow", 1)
    assert minute.stats.mean == 1.0


async def test_of_several_questions_one_is_looked_at(scene: Scene) -> None:
    of = scene.watch()
    request = SearchRequest(mode="dense", queries=(Query(text="a"), Query(text="b")))
    of.on_search(scene.watched.observed(request=request))
    assert await of.step() is not None
    await of.flush()
    (minute,) = await scene.minutes()
    assert minute.stats.queries == 1


async def test_a_search_by_words_alone_has_no_vector_to_look_with(scene: Scene) -> None:
    of = scene.watch()
    of.on_search(scene.watched.observed(DensePlan(), SearchRequest(text="number", mode="lexical")))
    assert await of.step() is not None, "its words are looked at"
    assert await of.step() is None


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("seconds", [0.01, 0.5, 20.0])
async def test_looks_take_no_more_of_a_minute_than_they_may(scene: Scene, seconds: float) -> None:
    of = scene.watch(budget_ms=600.0, probe=Costly(scene.watched.probe(), scene.clock, seconds))
    began, looked = scene.clock.seconds, 0.0
    for _ in range(20):
        of.on_search(scene.watched.observed())
        rest = await of.step()
        assert rest is not None
        looked += seconds
        scene.clock.seconds += rest
    assert looked / (scene.clock.seconds - began) == pytest.approx(0.01)


async def test_what_failed_costs_as_well(scene: Scene) -> None:
    of = scene.watch(probe=Costly(scene.watched.probe(), scene.clock, 2.0))
    scene.watched.vectors.failing = DatabaseUnavailable("it does not answer")
    of.on_search(scene.watched.observed())
    assert await of.step() == pytest.approx(2.0 * 99)


async def test_one_search_is_looked_at_at_a_time_and_stopping_writes_down_the_rest(scene: Scene) -> None:
    under_way, most, looks = 0, 0, 0

    async def meanwhile() -> None:
        nonlocal under_way, most, looks
        under_way += 1
        most, looks = max(most, under_way), looks + 1
        await asyncio.sleep(0)
        under_way -= 1
        scene.watched.vectors.meanwhile = meanwhile

    scene.watched.vectors.meanwhile = meanwhile
    of = scene.watch(budget_ms=60_000.0)
    async with running(of.run):
        for _ in range(20):
            of.on_search(scene.watched.observed())
        await until(lambda: looks >= 3)
    assert most == 1
    assert sum(minute.stats.queries for minute in await scene.minutes()) >= 3


async def test_a_search_that_comes_while_it_idles_is_looked_at_at_once(scene: Scene) -> None:
    of = scene.watch(budget_ms=60_000.0)
    looked = asyncio.Event()

    async def meanwhile() -> None:
        looked.set()

    scene.watched.vectors.meanwhile = meanwhile
    async with running(of.run):
        await asyncio.sleep(0)
        of.on_search(scene.watched.observed())
        await asyncio.wait_for(looked.wait(), watch.IDLE_SECONDS * 0.8)


# ---------------------------------------------------------------- what is found


async def test_what_was_found_is_added_up_by_the_minute_and_shown(scene: Scene) -> None:
    of, name = scene.watch(), scene.rename("added-up")
    scene.watched.vectors.lost = frozenset(f"d{number:02}" for number in range(10))
    for moment in (timedelta(seconds=1), timedelta(seconds=59), timedelta(seconds=61)):
        scene.at(moment)
        of.on_search(scene.watched.observed())
        assert await of.step() is not None
    await of.flush()
    first, second = await scene.minutes()
    assert (first.at, first.stats.queries) == (NOW, 2)
    assert (second.at, second.stats.queries) == (NOW + timedelta(minutes=1), 1)
    labels = {"version": "1", "plan": "hnsw", "band": "all"}
    mean = (first.stats + second.stats).mean
    assert 0 < mean < 1
    assert shown("azimuth_recall_at_k", name, **labels) == pytest.approx(mean)
    assert shown("azimuth_recall_samples_total", name, **labels) == 3
    scene.at(WINDOW + timedelta(minutes=3))
    await of.flush()
    assert shown("azimuth_recall_at_k", name, **labels) is None, "of so long ago nothing is said"


async def test_of_a_collection_that_is_gone_nothing_is_shown_again(scene: Scene) -> None:
    of, name = scene.watch(), scene.rename("deleted")
    of.on_search(scene.watched.observed(DensePlan(kind="exact")))
    await of.flush()
    labels = {"version": "1", "plan": "exact", "band": "all"}
    assert shown("azimuth_recall_at_k", name, **labels) == 1.0
    metrics.remove_collection(name)
    await of.flush()
    assert shown("azimuth_recall_at_k", name, **labels) is None


async def test_what_is_tried_besides_is_written_down_and_not_shown(scene: Scene) -> None:
    of = scene.watch(probe=scene.watched.probe(lower_step=lambda _: 10))
    name = scene.rename("tried-besides")
    of.on_search(scene.watched.observed())
    await of.step()
    await of.flush()
    assert [minute.series.ef_search for minute in await scene.minutes()] == [10, 200]
    assert shown("azimuth_recall_samples_total", name, version="1", plan="hnsw", band="all") == 1


async def test_torn_pairs_are_left_out(scene: Scene) -> None:
    of, observed = scene.watch(), scene.watched.observed()
    vector = observed.vectors[0]
    assert vector is not None
    scene.watched.vectors.meanwhile = lambda: scene.watched.world.put_and_store({"new": vector[None, :]})
    before = REGISTRY.get_sample_value("azimuth_probes_total", {"outcome": "torn"}) or 0.0
    of.on_search(observed)
    assert await of.step() is not None
    await of.flush()
    assert await scene.minutes() == ()
    assert REGISTRY.get_sample_value("azimuth_probes_total", {"outcome": "torn"}) == before + 1


async def test_a_look_long_after_the_search_takes_the_space_as_it_is_by_then(scene: Scene) -> None:
    of = scene.watch()
    where = parse({"kind": "thing"})
    filter_match = FilterMatch(ids=None, count=30, total=30)
    of.on_search(scene.watched.observed(HNSW, SearchRequest(text="w", mode="dense", where=where), filter_match))
    scene.clock.seconds += FRESH_SECONDS
    await of.step()
    await of.flush()
    assert await scene.minutes() == (), "so few documents are named, and scanned exactly"


async def test_remembered_searches_are_looked_at_where_none_comes(scene: Scene) -> None:
    of = scene.watch()
    for _ in range(3):
        of.on_search(scene.watched.observed())
    for _ in range(3):
        scene.clock.seconds += 60
        assert await of.step() is not None
    assert await of.step() is None
    await of.flush()
    assert sum(minute.stats.queries for minute in await scene.minutes()) == 3


async def test_searches_of_a_collection_that_is_gone_are_forgotten(scene: Scene) -> None:
    of = scene.watch()
    for _ in range(3):
        of.on_search(scene.watched.observed())
    await scene.watched.world.collections.delete(scene.watched.world.collection.id)
    scene.watched.spaces.forget(scene.watched.space.collection.name)
    scene.clock.seconds += FRESH_SECONDS
    assert await of.step() is not None
    assert await of.step() is None
    await of.flush()


async def test_trouble_is_the_end_of_nothing(scene: Scene) -> None:
    of = scene.watch()
    for failure in (DatabaseUnavailable("it does not answer"), ZeroDivisionError()):
        scene.watched.vectors.failing = failure
        of.on_search(scene.watched.observed())
        assert await of.step() is not None
    scene.watched.vectors.failing = None
    of.on_search(scene.watched.observed())
    assert await of.step() is not None
    await of.flush()
    assert [minute.stats.queries for minute in await scene.minutes()] == [1]


# ---------------------------------------------------------------- words


async def test_words_are_looked_at_now_and_then(scene: Scene) -> None:
    of, name = scene.watch(), scene.watched.space.collection.name
    await scene.watched.world.put(*(doc(f"d{number:02}", f"number {number}") for number in range(30)))
    for text in ("number", "number 3"):
        of.on_search(scene.watched.observed(DensePlan(), SearchRequest(text=text, mode="lexical")))
    assert await of.step() is not None
    assert await of.step() is None, "not so soon again"
    scene.clock.seconds += LEXICAL_SECONDS
    assert await of.step() is not None
    await of.flush()
    (minute,) = await scene.minutes()
    assert (minute.series.leg, minute.stats.queries) == ("lexical", 2)
    assert shown("azimuth_lexical_recall_at_k", name) == pytest.approx(minute.stats.mean)


# ---------------------------------------------------------------- kept where others see it


class Refusing:
    """Recalls that cannot be written to at first."""

    def __init__(self, of: Watched) -> None:
        self._of = of
        self.refused = 0
        self.forgotten: list[object] = []

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        self.refused += 1
        if self.refused == 1:
            raise DatabaseUnavailable("it does not answer")
        await self._of.world.recalls.add(collection_id, minutes)

    async def delete_before(self, before: object) -> int:
        self.forgotten.append(before)
        return 0


async def test_what_cannot_be_written_down_is_written_later_and_once(scene: Scene) -> None:
    of, refusing = scene.watch(), Refusing(scene.watched)
    of.aggregator = RecallAggregator(refusing, lambda: NOW)  # type: ignore[arg-type]
    of.on_search(scene.watched.observed(DensePlan(kind="exact")))
    await of.flush()
    assert await scene.minutes() == ()
    of.on_search(scene.watched.observed(DensePlan(kind="exact")))
    await of.flush()
    await of.flush()
    assert [minute.stats.queries for minute in await scene.minutes()] == [2]


async def test_old_minutes_are_forgotten_once_an_hour(scene: Scene) -> None:
    of, refusing = scene.watch(), Refusing(scene.watched)
    of.aggregator = RecallAggregator(refusing, lambda: NOW)  # type: ignore[arg-type]
    for _ in range(3):
        await of.flush()
    assert refusing.forgotten == [NOW - RETENTION]
    scene.clock.seconds += watch.RETENTION_SECONDS
    await of.flush()
    assert len(refusing.forgotten) == 2


async def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        with suppress(TimeoutError):
            await asyncio.sleep(0.002)
