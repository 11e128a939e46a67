"""The second stage: a cross-encoder scores query and passage together; its scores are blended with the first stage.

Passages are scored in portions, in the order of the first stage. As many as the answer has hits are read whole, of the
others an excerpt; what the first 32 say tells how far the cross-encoder can be trusted. From then on it goes on only
while another portion can change the answer and the budget allows it: with excerpts of more passages, and with all of a
passage whose excerpt brought it among the first hits. So no place in the answer is decided by an excerpt.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.core import metrics
from service.core.collections import RerankSettings
from service.core.concurrency import off_loop
from service.core.errors import Overloaded, Unavailable
from service.core.explanation import RerankExplanation
from service.core.ports.reranker import Reranker, RerankScores, query_cut_reason
from service.core.relevance import RelevanceCalibration
from service.core.search import Hit, RerankSummary, SearchRequest
from service.search.context import SearchContext
from service.search.excerpts import excerpt, terms
from service.search.rerank_blend import AGREEMENT_SAMPLE, RerankBlend, log_odds, trusted_weight

AMPLE = 4.0
"""A deadline so many times as far off as a batch is expected to take does not make it smaller."""
MAX_PAGES = 50
"""Pages of the hits that are read: of smaller ones some are settled together."""
EXCERPT_ODDS = 0.5
"""What the odds of a passage are taken for, as a share of those of its excerpt, which has what is nearest to the query.
The median of candidates of SciFact is .59, of SQuAD .69; less than that changes no answer for the worse, and fewer
passages are read twice."""


class RerankStage:
    """Reranks the first hits of a search; without a reranker the answer says so."""

    def __init__(self, reranker: Reranker | None) -> None:
        self._reranker = reranker
        self._paces = RerankPace(), RerankPace()

    async def rerank(
        self, context: SearchContext, settings: RerankSettings | None, hits: list[Hit]
    ) -> tuple[list[Hit], RerankSummary | None]:
        """The hits by their blended scores, as far as they were scored; the others behind them in order."""
        if settings is None or not hits:
            return hits, None
        if self._reranker is None:
            context.degrade("rerank", "not_configured", "no reranker is configured")
            return hits, None
        head, pages = hits[: settings.depth], _pages(context.request, min(settings.depth, len(hits)))
        first = [hit.score for hit in head]
        scorer = _PassageScorer(context, self._reranker, self._paces, head)
        with context.timings.stage("rerank"):
            await scorer.score_until(pages[0], whole=True)
            await scorer.score_until(min(AGREEMENT_SAMPLE, len(first)), whole=False)
            relevance = scorer.relevance
            # A reranker that did not read the whole query counts by as much less.
            weight = trusted_weight(first, relevance, settings.weight) * scorer.query_share
            blend = RerankBlend(first, weight)
            settled: list[int] = []
            for end in pages:
                while scorer.running:
                    if (required := blend.required(relevance, end)) > len(relevance):
                        await scorer.score_until(required, whole=False)
                    elif leading := scorer.excerpts & set(_order(hits, blend, relevance, settled)[:end]):
                        await scorer.score_whole(sorted(leading))
                    else:
                        break
                settled = _order(hits, blend, relevance, settled)[:end]
        read = len(relevance)
        if not read:
            return hits, None
        if scorer.query_share < 1:
            context.degrade("rerank", "query_truncated", query_cut_reason(scorer.query_share))
        skipped = len(first) - read if blend.required(relevance, pages[-1]) <= read else 0
        if context.live:
            metrics.RERANK_SKIPPED.inc(skipped)
        summary = RerankSummary(
            read=read, excerpts=len(scorer.excerpts), skipped=skipped, truncated=scorer.truncated, weight=blend.weight
        )
        return _blended(hits, blend, relevance, scorer.calibrated(), settled), summary


def _pages(request: SearchRequest, most: int) -> list[int]:
    """Where the pages up to that of the request end, which are settled one after the other: reading more for a later
    page must not change those before it. At most `most` hits are read, and all of them for a threshold on relevance."""
    if request.min_score is not None and request.min_score.relevance is not None:
        return [most]
    first = request.pool_size - request.offset
    step = max(first, most // MAX_PAGES)
    return [*range(first, min(request.pool_size, most), step), min(request.pool_size, most)]


@dataclass(slots=True)
class _PassageScorer:
    """Scores the first hits of a search in order, within the budget.

    `paces`: for excerpts and for whole passages. `relevance`: of the hits scored so far, for `excerpts` of them by an
    excerpt. `truncated`: how many were cut by the reranker. `query_share`: how much of the query was read, at least.
    `running`: may it go on?
    """

    context: SearchContext
    reranker: Reranker
    paces: tuple["RerankPace", "RerankPace"]
    hits: Sequence[Hit]
    relevance: list[float] = field(default_factory=list)
    excerpts: set[int] = field(default_factory=set)
    truncated: int = 0
    query_share: float = 1.0
    calibration: RelevanceCalibration | None = None
    running: bool = True

    async def score_until(self, count: int, *, whole: bool) -> None:
        """Score at least the first `count` hits, unless the budget ends or the reranker fails."""
        while self.running and (read := len(self.relevance)) < count:
            wanted = count - read if whole else max(count - read, self.reranker.portion)
            await self._score_portion(range(read, min(read + wanted, len(self.hits))), whole)

    async def score_whole(self, places: Sequence[int]) -> None:
        """Score hits of which an excerpt was read by the whole passage."""
        while self.running and places:
            places = places[await self._score_portion(places, whole=True) :]

    async def _score_portion(self, places: Sequence[int], whole: bool) -> int:
        """Score as many of these hits as the deadline allows: how many. One may be new, behind those that are known."""
        seconds, pace = self.context.remaining_seconds(), self.paces[whole]
        # One large batch is packed best; a deadline that is not far off is met best in portions.
        if seconds is not None and not pace.is_ample(seconds, len(places)):
            places = places[: min(self.reranker.portion, pace.passages_within(seconds))]
        if not places:
            self._stop()
            return 0
        started = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                scores, excerpts = await _score(
                    self.context.request, self.reranker, [self.hits[at] for at in places], whole
                )
        except TimeoutError:
            pace.record(time.perf_counter() - started, len(places))  # a lower bound
            self._stop()
        except (Unavailable, Overloaded) as error:
            self._stop(error)
        else:
            pace.record(time.perf_counter() - started, len(places))
            for at, score in zip(places, scores.scores, strict=True):
                self.relevance[at : at + 1] = [score]
            self.excerpts.difference_update(places)
            self.excerpts.update(places[at] for at in excerpts)
            self.truncated += scores.truncated
            self.query_share = min(self.query_share, scores.query_share)
            self.calibration = scores.calibration
        return len(places)

    def calibrated(self) -> Sequence[float | None]:
        """The relevance of each hit that was read; unknown where either text was cut, or without a calibration."""
        if self.calibration is None or self.query_share < 1:
            return [None] * len(self.relevance)
        known = self.calibration.probabilities([log_odds(one) for one in self.relevance])
        return [None if at in self.excerpts else one for at, one in enumerate(known)]

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
        if self.excerpts:
            partly += f", {len(self.excerpts)} of them in excerpts"
        self.context.degrade("rerank", *(("cut_short", partly) if read else (code, reason)))


async def _score(
    request: SearchRequest, reranker: Reranker, hits: Sequence[Hit], whole: bool
) -> tuple[RerankScores, list[int]]:
    """Score each passage with the query that contributes most to its hit; and which were read as an excerpt."""
    places_by_query: defaultdict[str, list[int]] = defaultdict(list)
    for at, hit in enumerate(hits):
        places_by_query[request.model_text(request.rerank_query(hit.explanation))].append(at)
    scores, excerpts = [0.0] * len(hits), list[int]()
    truncated, share, calibration = 0, 1.0, None
    for query, places in places_by_query.items():
        read = [hits[at] for at in places]
        shown = [(hit.title, hit.explanation.context, hit.text) for hit in read]
        passages = ["\n".join(filter(None, lines)) for lines in shown]
        if not whole:
            cut = await off_loop(0, _excerpts, query, passages)
            excerpts += [at for at, one, other in zip(places, passages, cut, strict=True) if one is not other]
            passages = cut
        found = await reranker.read(query, passages)
        truncated += found.truncated
        share, calibration = min(share, found.query_share), found.calibration
        for at, score in zip(places, found.scores, strict=True):
            scores[at] = score
    for at in excerpts:
        scores[at] *= EXCERPT_ODDS / (1 - scores[at] * (1 - EXCERPT_ODDS))
    return RerankScores(scores=tuple(scores), truncated=truncated, query_share=share, calibration=calibration), excerpts


def _excerpts(query: str, passages: Sequence[str]) -> list[str]:
    wanted = terms(query)
    return [excerpt(wanted, passage) for passage in passages]


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


def _order(hits: Sequence[Hit], blend: RerankBlend, relevance: Sequence[float], settled: Sequence[int]) -> list[int]:
    """The scored hits, the best first; before them those whose places are settled."""
    scores = [blend.score(at, one) for at, one in enumerate(relevance)]
    best = sorted(range(len(scores)), key=lambda at: (-scores[at], hits[at].id, hits[at].chunk))
    return list(dict.fromkeys([*settled, *best]))


def _blended(
    hits: Sequence[Hit],
    blend: RerankBlend,
    relevance: Sequence[float],
    calibrated: Sequence[float | None],
    settled: Sequence[int],
) -> list[Hit]:
    """The scored hits by their final score, then the others."""
    by_relevance = sorted(range(len(relevance)), key=lambda at: -relevance[at])
    ranks = {at: rank for rank, at in enumerate(by_relevance, start=1)}
    scored = []
    for at in _order(hits, blend, relevance, settled):
        one = relevance[at]
        rerank = RerankExplanation(rank=ranks[at], score=one, share=blend.share(one))
        explanation = replace(hits[at].explanation, rerank=rerank)
        scored.append(replace(hits[at], score=blend.score(at, one), relevance=calibrated[at], explanation=explanation))
    floor = min(hit.score for hit in scored)
    return scored + [replace(hit, score=blend.unread_score(hit.score, floor)) for hit in hits[len(relevance) :]]
