"""The second stage: a cross-encoder scores query and passage together; its scores are blended with the first stage.

Passages are scored in portions, in the order of the first stage. The first portion tells how far the cross-encoder can
be trusted; from then on it goes on only while another portion can change the answer and the budget allows it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.core import metrics
from service.core.collections import RerankSettings
from service.core.errors import Overloaded, Unavailable
from service.core.ports.reranker import Reranker, RerankScores, query_cut_reason
from service.core.relevance import RelevanceCalibration
from service.core.search import Hit, RerankExplanation, RerankSummary, SearchRequest
from service.search.context import SearchContext
from service.search.rerank_blend import AGREEMENT_SAMPLE, RerankBlend, log_odds, trusted_weight

AMPLE = 4.0
"""A deadline so many times as far off as a batch is expected to take does not make it smaller."""


class RerankStage:
    """Reranks the first hits of a search; without a reranker the answer says so."""

    def __init__(self, reranker: Reranker | None) -> None:
        self._reranker = reranker
        self._pace = RerankPace()

    async def rerank(
        self, context: SearchContext, settings: RerankSettings | None, hits: list[Hit]
    ) -> tuple[list[Hit], RerankSummary | None]:
        """The hits by their blended scores, as far as they were scored; the others behind them in order."""
        if settings is None or not hits:
            return hits, None
        if self._reranker is None:
            context.degrade("rerank", "not_configured", "no reranker is configured")
            return hits, None
        head, pool_size = hits[: settings.depth], context.request.pool_size
        first = [hit.score for hit in head]
        scorer = _PassageScorer(context, self._reranker, self._pace, head)
        with context.timings.stage("rerank"):
            await scorer.score_until(min(AGREEMENT_SAMPLE, len(first)))
            relevance = scorer.relevance
            # A reranker that did not read the whole query counts by as much less.
            weight = trusted_weight(first, relevance, settings.weight) * scorer.query_share
            blend = RerankBlend(first, weight)
            while scorer.running and (required := blend.required(relevance, pool_size)) > len(relevance):
                await scorer.score_until(required)
        read = len(relevance)
        if not read:
            return hits, None
        if scorer.query_share < 1:
            context.degrade("rerank", "query_truncated", query_cut_reason(scorer.query_share))
        skipped = len(first) - read if blend.required(relevance, pool_size) <= read else 0
        if context.live:
            metrics.RERANK_SKIPPED.inc(skipped)
        summary = RerankSummary(read=read, skipped=skipped, truncated=scorer.truncated, weight=blend.weight)
        return _blended(hits, blend, relevance, scorer.calibrated()), summary


@dataclass(slots=True)
class _PassageScorer:
    """Scores the first hits of a search in order, within the budget.

    `relevance`: of the hits scored so far. `truncated`: how many of them were cut. `query_share`: how much of the query
    was read, at least. `running`: may it go on?
    """

    context: SearchContext
    reranker: Reranker
    pace: "RerankPace"
    hits: Sequence[Hit]
    relevance: list[float] = field(default_factory=list)
    truncated: int = 0
    query_share: float = 1.0
    calibration: RelevanceCalibration | None = None
    running: bool = True

    async def score_until(self, count: int) -> None:
        """Score at least the first `count` hits, unless the budget ends or the reranker fails."""
        while self.running and len(self.relevance) < count:
            await self._score_portion(count - len(self.relevance))

    async def _score_portion(self, wanted: int) -> None:
        count, portion, seconds = len(self.relevance), self.reranker.portion, self.context.remaining_seconds()
        # One large batch is packed best; a deadline that is not far off is met best in portions.
        size = max(wanted, portion)
        if seconds is not None and not self.pace.is_ample(seconds, size):
            size = min(portion, self.pace.passages_within(seconds))
        hits = self.hits[count : count + size]
        if not hits:
            self._stop()
            return
        started = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                scores = await _score(self.context.request, self.reranker, hits)
        except TimeoutError:
            self.pace.record(time.perf_counter() - started, len(hits))  # a lower bound
            self._stop()
        except (Unavailable, Overloaded) as error:
            self._stop(error)
        else:
            self.pace.record(time.perf_counter() - started, len(hits))
            self.relevance += scores.scores
            self.truncated += scores.truncated
            self.query_share = min(self.query_share, scores.query_share)
            self.calibration = scores.calibration

    def calibrated(self) -> Sequence[float | None]:
        """The relevance of each hit that was read; unknown where the query was cut, or without a calibration."""
        if self.calibration is None or self.query_share < 1:
            return [None] * len(self.relevance)
        return self.calibration.probabilities([log_odds(one) for one in self.relevance])

    def _stop(self, error: Unavailable | Overloaded | None = None) -> None:
        """Stop because of `error`, or else because the budget is spent, and report it."""
        self.running = False
        read, wanted = len(self.relevance), len(self.hits)
        if error is None:
            budget = f"the budget of {self.context.request.budget_ms:g} ms"
            code, reason, partly = "budget", f"{budget} was spent", f"{budget} allowed {read} of {wanted} passages"
        else:
            code, reason = type(error).__name__, error.detail
            partly = f"{read} of {wanted} passages were read: {reason}"
        self.context.degrade("rerank", *(("cut_short", partly) if read else (code, reason)))


async def _score(request: SearchRequest, reranker: Reranker, hits: Sequence[Hit]) -> RerankScores:
    """Score each passage with the query that contributes most to its hit."""
    places_by_query: defaultdict[str, list[int]] = defaultdict(list)
    for at, hit in enumerate(hits):
        places_by_query[request.model_text(request.rerank_query(hit.explanation))].append(at)
    scores = [0.0] * len(hits)
    truncated, share, calibration = 0, 1.0, None
    for query, places in places_by_query.items():
        read = [hits[at] for at in places]
        shown = [(hit.title, hit.explanation.context, hit.text) for hit in read]
        passages = ["\n".join(filter(None, lines)) for lines in shown]
        found = await reranker.read(query, passages)
        truncated += found.truncated
        share, calibration = min(share, found.query_share), found.calibration
        for at, score in zip(places, found.scores, strict=True):
            scores[at] = score
    return RerankScores(scores=tuple(scores), truncated=truncated, query_share=share, calibration=calibration)


@dataclass(slots=True)
class RerankPace:
    """How long a passage takes here, waiting for others included: a moving average over portions."""

    seconds: float | None = None
    """For each passage; None before the first portion."""

    def passages_within(self, seconds: float) -> int:
        """How many passages can be scored in `seconds`, as far as is known.

        Where that is none, the pace improves a little for the next search: it may have been measured while a model was
        loaded or many were waiting, and would otherwise never be measured again.
        """
        if not self.seconds:
            return 1_000 if seconds > 0 else 0
        count = int(max(0.0, seconds) / self.seconds)
        if not count:
            self.seconds *= 0.9
        return count

    def is_ample(self, seconds: float, passages: int) -> bool:
        """Whether so many passages take only a small part of `seconds`, as far as is known."""
        return self.seconds is not None and AMPLE * passages * self.seconds < seconds

    def record(self, seconds: float, passages: int) -> None:
        latest = seconds / passages
        self.seconds = latest if self.seconds is None else 0.5 * self.seconds + 0.5 * latest


def _blended(
    hits: Sequence[Hit], blend: RerankBlend, relevance: Sequence[float], calibrated: Sequence[float | None]
) -> list[Hit]:
    """The scored hits by their final score, then the others."""
    by_relevance = sorted(range(len(relevance)), key=lambda at: -relevance[at])
    ranks = {at: rank for rank, at in enumerate(by_relevance, start=1)}
    scored = []
    for at, one in enumerate(relevance):
        rerank = RerankExplanation(rank=ranks[at], score=one, share=blend.share(one))
        explanation = replace(hits[at].explanation, rerank=rerank)
        score = blend.score(at, one)
        scored.append(replace(hits[at], score=score, relevance=calibrated[at], explanation=explanation))
    scored.sort(key=lambda hit: (-hit.score, hit.id, hit.chunk))
    floor = scored[-1].score
    return scored + [replace(hit, score=blend.unread_score(hit.score, floor)) for hit in hits[len(relevance) :]]
