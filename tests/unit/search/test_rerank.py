"""The second stage over a cross-encoder that is told what to say: portions, early exit, budget, and what goes wrong."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from service.core import timings
from service.core.collections import RerankSettings
from service.core.errors import ModelUnavailable
from service.core.explanation import Explanation
from service.core.ids import DocumentId
from service.core.ports.reranker import RerankScores
from service.core.relevance import RelevanceCalibration
from service.core.search import Hit, RerankSummary, SearchRequest
from service.search import rerank
from service.search.context import SearchContext
from service.search.excerpts import EXCERPT_LENGTH
from service.search.rerank import RerankPace, RerankStage
from service.search.rerank_blend import AGREEMENT_SAMPLE


@dataclass
class Told:
    """Knows the relevance of each passage by its text. `before` runs ahead of each portion, with its texts."""

    relevance: dict[str, float]
    portion: int = 4
    truncated: int = 0
    query_share: float = 1.0
    calibration: RelevanceCalibration | None = None
    before: Callable[[Sequence[str]], None] = lambda passages: None
    name: str = "told"
    portions: list[list[str]] = field(default_factory=list)

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        self.before(passages)
        self.portions.append(list(passages))
        scores = tuple(self.relevance[passage] for passage in passages)
        return RerankScores(
            scores=scores, truncated=self.truncated, query_share=self.query_share, calibration=self.calibration
        )


def hits(first: Sequence[float]) -> list[Hit]:
    same: Any = {"chunk": 0, "title": "", "start": 0, "end": 6, "metadata": {}, "revision": 1, "content_revision": 1}
    explained = [Explanation(dense=None, lexical=None, fusion=score) for score in first]
    return [
        Hit(id=DocumentId(f"d{at:02}"), score=one.fusion, text=f"text {at}", explanation=one, **same)
        for at, one in enumerate(explained)
    ]


def told(relevance: Sequence[float], **how: object) -> Told:
    return Told({f"text {at}": one for at, one in enumerate(relevance)}, **how)  # type: ignore[arg-type]


NOWHERE: Any = None
"""The space, which this stage does not need."""
FALLING = [1 - 0.05 * at for at in range(12)]
MANY = [1 - 0.02 * at for at in range(AGREEMENT_SAMPLE + 8)]


async def order(
    reranker: Told,
    *,
    first: Sequence[float] = FALLING,
    k: int = 10,
    depth: int = 50,
    weight: float = 0.5,
    budget_ms: float | None = None,
) -> tuple[SearchContext, list[Hit], RerankSummary | None]:
    context = SearchContext(SearchRequest(text="q", k=k, budget_ms=budget_ms), NOWHERE)
    how = RerankSettings(depth=depth, weight=weight)
    return context, *await RerankStage(reranker).rerank(context, how, hits(first))


async def test_portions_are_read_in_the_order_of_the_first_stage_down_to_the_depth() -> None:
    reranker = told([0.0] * 8 + [1.0] * 4)
    _, ordered, reread = await order(reranker, depth=9)
    assert [text for portion in reranker.portions for text in portion] == [f"text {at}" for at in range(9)]
    assert reread == RerankSummary(read=9, skipped=0, weight=0.5)
    assert ordered[0].id == "d08"
    assert [hit.id for hit in ordered[-3:]] == ["d09", "d10", "d11"]  # relevant, but below the depth
    assert [hit.score for hit in ordered] == sorted((hit.score for hit in ordered), reverse=True)
    explained = ordered[0].explanation.rerank
    assert explained is not None
    assert (explained.rank, explained.score) == (1, 1.0)
    assert explained.share == pytest.approx(0.5)
    assert ordered[0].score == pytest.approx(0.5 * FALLING[8] + explained.share)
    assert ordered[-1].explanation.rerank is None


async def test_it_stops_when_the_answer_is_settled_and_counts_what_it_saved() -> None:
    before = REGISTRY.get_sample_value("azimuth_rerank_skipped_pairs_total") or 0.0
    reranker = told([1.0] * 3 + [0.0] * (len(MANY) - 3))
    context, ordered, reread = await order(reranker, first=MANY, k=3, weight=0.1)
    assert reread == RerankSummary(read=AGREEMENT_SAMPLE, skipped=8, weight=0.1)
    assert [hit.id for hit in ordered[:3]] == ["d00", "d01", "d02"]
    assert not context.degraded
    assert REGISTRY.get_sample_value("azimuth_rerank_skipped_pairs_total") == before + 8
    unseen = SearchContext(SearchRequest(text="q", k=3), NOWHERE, live=False)  # an evaluation
    await RerankStage(reranker).rerank(unseen, RerankSettings(weight=0.1), hits(MANY))
    assert REGISTRY.get_sample_value("azimuth_rerank_skipped_pairs_total") == before + 8


RELEVANCE = st.lists(st.floats(0, 1), min_size=len(MANY), max_size=len(MANY))


@settings(deadline=None)
@given(RELEVANCE, st.floats(0, 1), st.integers(1, 12), st.integers(1, 6))
def test_the_first_k_are_those_of_reading_everything(
    relevance: list[float], weight: float, k: int, portion: int
) -> None:
    def answer(wanted: int) -> list[tuple[DocumentId, float]]:
        reranker = told(relevance, portion=portion)
        _, ordered, _ = asyncio.run(order(reranker, first=MANY, k=wanted, weight=weight))
        return [(hit.id, hit.score) for hit in ordered[:k]]

    assert answer(k) == answer(len(MANY))


@dataclass
class Reader(Told):
    """Knows passages by their beginning: of an excerpt it says what `excerpts` says."""

    excerpts: Sequence[float] = ()

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        self.before(passages)
        self.portions.append(list(passages))
        told = [(int(one.split()[1]), len(one) > EXCERPT_LENGTH) for one in passages]
        scores = [self.relevance[f"text {at}"] if whole else self.excerpts[at] for at, whole in told]
        return RerankScores(scores=tuple(scores), calibration=CALIBRATION)


def long_hits() -> list[Hit]:
    return [replace(hit, text=hit.text + " and" * 100) for hit in hits(MANY)]


@settings(deadline=None)
@given(RELEVANCE, RELEVANCE, st.integers(1, 12), st.booleans())
def test_no_place_in_the_answer_is_decided_by_an_excerpt(
    relevance: list[float], excerpts: list[float], k: int, agree: bool
) -> None:
    """And with excerpts that say what the passages say it is the answer of reading everything."""
    if agree:  # but for the share of the odds
        excerpts = [one / (one + rerank.EXCERPT_ODDS * (1 - one)) for one in relevance]
    whole = {f"text {at}": one for at, one in enumerate(relevance)}
    context = SearchContext(SearchRequest(text="q", k=k), NOWHERE)
    stage = RerankStage(Reader(whole, excerpts=excerpts))
    ordered, summary = asyncio.run(stage.rerank(context, RerankSettings(weight=0.5), long_hits()))
    assert summary is not None
    assert summary.read + summary.skipped == len(MANY)
    assert summary.excerpts <= summary.read - k
    for hit in ordered[:k]:
        assert hit.explanation.rerank is not None
        assert hit.explanation.rerank.score == whole[" ".join(hit.text.split()[:2])]
        assert hit.relevance is not None
    if agree:
        _, read, _ = asyncio.run(order(told(relevance), first=MANY, k=len(MANY), weight=0.5))
        assert [hit.score for hit in ordered[:k]] == pytest.approx([hit.score for hit in read[:k]], abs=1e-6)


async def test_a_passage_whose_excerpt_is_promising_is_read_whole() -> None:
    excerpts, whole = [0.01] * len(MANY), {f"text {at}": 0.01 for at in range(len(MANY))}
    excerpts[20] = excerpts[25] = whole["text 20"] = 0.9
    reranker = Reader(whole, excerpts=excerpts)
    context = SearchContext(SearchRequest(text="q", k=3), NOWHERE)
    ordered, summary = await RerankStage(reranker).rerank(context, RerankSettings(weight=1.0), long_hits())
    assert [len(portion) for portion in reranker.portions[:2]] == [3, AGREEMENT_SAMPLE - 3]
    assert [text.split()[1] for text in reranker.portions[-1]] == ["20", "25"]
    assert summary == RerankSummary(read=len(MANY), excerpts=len(MANY) - 5, skipped=0, weight=1.0)
    assert [hit.id for hit in ordered[:3]] == ["d20", "d00", "d01"]


async def test_a_budget_that_ends_among_excerpts_says_so(clock: Any) -> None:
    def work(passages: Sequence[str]) -> None:
        clock.now += sum(0.1 if len(one) > EXCERPT_LENGTH else 0.03 for one in passages)

    reranker = Reader(told([0.5] * len(MANY)).relevance, excerpts=[0.5] * len(MANY), before=work)
    context = SearchContext(SearchRequest(text="q", k=3, budget_ms=620), NOWHERE)
    _, summary = await RerankStage(reranker).rerank(context, RerankSettings(), long_hits())
    assert summary is not None
    assert (summary.read, summary.excerpts) == (13, 10)
    assert clock.now <= 0.62
    (reported,) = context.degraded
    assert reported.reason == "the budget of 620 ms allowed 13 of 40 passages, 10 of them in excerpts"


async def test_a_reranker_that_has_nothing_to_do_with_the_first_stage_does_not_count() -> None:
    apart = [0.9, 0.5, 0.2, 0.6] * 10
    _, _, reread = await order(told(apart), first=MANY, k=10, weight=0.6)
    assert reread is not None
    assert reread.weight < 0.2
    contrary = [0.02 + 0.02 * at for at in range(len(MANY))]
    _, ordered, reread = await order(told(contrary), first=MANY, k=10, weight=0.6)
    assert reread == RerankSummary(read=AGREEMENT_SAMPLE, skipped=8, weight=0.0)
    assert [hit.id for hit in ordered[:10]] == [hit.id for hit in hits(MANY)[:10]]
    # Unless it is all that shall count.
    _, ordered, _ = await order(told(contrary), first=MANY, k=10, weight=1.0)
    assert ordered[0].id == f"d{len(MANY) - 1:02}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of the module `time`: time passes when a test sets `now`."""
    module: Any = SimpleNamespace(now=0.0, perf_counter=lambda: module.now)
    monkeypatch.setattr(rerank, "time", module)
    monkeypatch.setattr(timings, "time", module)
    return module


async def test_a_budget_is_kept_by_what_the_portions_before_took(clock: Any) -> None:
    def work(passages: Sequence[str]) -> None:
        clock.now += 0.11 * len(passages)

    reranker = told([1.0] * 12, before=work)
    context, ordered, reread = await order(reranker, k=12, budget_ms=1000)
    assert [len(portion) for portion in reranker.portions] == [4, 4, 1]
    assert clock.now <= 1.0
    assert reread == RerankSummary(read=9, skipped=0, weight=0.5)
    told_so = [(one.stage, one.code, one.reason) for one in context.degraded]
    assert told_so == [("rerank", "cut_short", "the budget of 1000 ms allowed 9 of 12 passages")]
    assert [hit.id for hit in ordered[-3:]] == ["d09", "d10", "d11"]


@pytest.mark.parametrize(("budget_ms", "portions"), [(None, [12]), (60_000, [12]), (4_000, [4, 8])])
async def test_only_a_deadline_that_is_near_makes_the_portions_small(
    clock: Any, budget_ms: float | None, portions: list[int]
) -> None:
    reranker = told([1.0] * 12, before=lambda passages: setattr(clock, "now", clock.now + 0.1 * len(passages)))
    stage = RerankStage(reranker)
    for budget in (None, budget_ms):  # the first shows its pace
        context = SearchContext(SearchRequest(text="q", k=12, budget_ms=budget), NOWHERE)
        await stage.rerank(context, RerankSettings(), hits(FALLING))
    assert [len(portion) for portion in reranker.portions] == [12, *portions]


async def test_a_budget_that_is_spent_before_leaves_the_first_stage_as_it_was(clock: Any) -> None:
    context = SearchContext(SearchRequest(text="q", budget_ms=50), NOWHERE)
    clock.now += 1.0
    first, reranker = hits(FALLING), told([1.0] * 12)
    assert await RerankStage(reranker).rerank(context, RerankSettings(), first) == (first, None)
    assert reranker.portions == []
    assert [(one.code, one.reason) for one in context.degraded] == [("budget", "the budget of 50 ms was spent")]


async def test_a_portion_that_outlasts_the_budget_is_given_up_and_those_before_count() -> None:
    class Stuck(Told):
        async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
            if self.portions:
                await asyncio.Event().wait()
            return await super().read(query, passages)

    reranker = Stuck({f"text {at}": 1.0 for at in range(12)})
    context, _, reread = await order(reranker, k=12, budget_ms=1000)
    assert reread == RerankSummary(read=4, skipped=0, weight=0.5)
    assert [one.reason for one in context.degraded] == ["the budget of 1000 ms allowed 4 of 12 passages"]


async def test_a_failure_half_way_keeps_what_was_read() -> None:
    reranker = told([1.0] * 12)

    def fail(passages: Sequence[str]) -> None:
        if reranker.portions:
            raise ModelUnavailable("out of memory")

    reranker.before = fail
    context, _, reread = await order(reranker, k=12, budget_ms=60_000)
    assert reread == RerankSummary(read=4, skipped=0, weight=0.5)
    (reported,) = context.degraded
    assert (reported.code, reported.reason) == ("cut_short", "4 of 12 passages were read: out of memory")


async def test_cut_passages_are_counted() -> None:
    context, _, reread = await order(told([0.5] * 12, truncated=2), k=12)
    assert reread == RerankSummary(read=12, skipped=0, truncated=2, weight=0.5)
    assert not context.degraded


@pytest.mark.parametrize("weight", [0.5, 1.0])
async def test_a_reranker_that_read_a_part_of_the_query_says_so_and_counts_by_as_much(weight: float) -> None:
    reranker = told([0.0] * 8 + [1.0], query_share=0.2)
    context, ordered, reread = await order(reranker, first=FALLING[:9], weight=weight)
    assert reread is not None
    assert reread.weight == pytest.approx(0.2 * weight)
    (reported,) = context.degraded
    assert (reported.stage, reported.code) == ("rerank", "query_truncated")
    assert "read 20% of it" in reported.reason
    assert ordered[0].id == "d00"  # alone it would say d08


CALIBRATION = RelevanceCalibration(slope=1.0, offset=-4.5, base=-6.0)


async def test_hits_that_were_read_have_their_relevance_whatever_their_score() -> None:
    read = [0.8, *[0.001] * (AGREEMENT_SAMPLE + 6), 0.7]
    _, ordered, _ = await order(told(read, calibration=CALIBRATION), first=MANY, k=40, depth=len(MANY) - 2, weight=0.1)
    assert ordered[0].relevance is not None
    assert ordered[0].relevance > 0.8
    assert [hit.relevance is None for hit in ordered] == [False] * (len(MANY) - 2) + [True] * 2  # below the depth
    _, ordered, _ = await order(told([0.001] * 12, calibration=CALIBRATION))
    assert ordered[0].score == pytest.approx(0.5, abs=0.01)
    assert max(hit.relevance or 0 for hit in ordered) < 0.05  # the best of nothing


@pytest.mark.parametrize("how", [{}, {"calibration": CALIBRATION, "query_share": 0.9}])
async def test_without_a_calibration_or_the_whole_query_relevance_is_unknown(how: dict[str, Any]) -> None:
    _, ordered, reread = await order(told([0.9] * 12, **how))
    assert reread is not None
    assert {hit.relevance for hit in ordered} == {None}


def test_a_pace_that_fits_nothing_is_doubted_until_it_is_tried_again() -> None:
    pace = RerankPace()
    assert pace.passages_within(0.0) == 0
    assert pace.passages_within(0.001) > 100  # nothing is known
    pace.record(8.0, 4)  # a model was loaded meanwhile
    assert pace.passages_within(0.1) == 0
    refused = next(number for number in itertools.count() if pace.passages_within(0.1))
    assert 10 < refused < 50
    for _ in range(4):
        pace.record(0.01, 4)
    assert pace.passages_within(0.1) >= 4
