"""The second stage: a cross-encoder reads query and passage together, and is blended with what the legs said.

Passages are read in portions, in the order of the first stage. The first of them tell how far the cross-encoder is to
be believed; from then on it is asked between two portions whether another one can still change the answer, and whether
the budget allows it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from service.core import metrics
from service.core.collections import RerankSettings
from service.core.errors import Overloaded, Unavailable
from service.core.ports.reranker import Reranker, RerankScores
from service.core.search import Hit, RerankExplanation, RerankSummary, SearchRequest
from service.search.context import SearchContext
from service.search.rerank_blend import AGREEMENT_SAMPLE, RerankBlend, trusted_weight


class RerankStage:
    """Over the first hits of a search; without a reranker it says so in the answer."""

    def __init__(self, reranker: Reranker | None) -> None:
        self._reranker = reranker
        self._pace = RerankPace()

    async def rerank(
        self, context: SearchContext, how: RerankSettings | None, hits: list[Hit]
    ) -> tuple[list[Hit], RerankSummary | None]:
        """The hits by their blended scores, as far as the cross-encoder could read; the others behind them in order."""
        if how is None or not hits:
            return hits, None
        if self._reranker is None:
            context.note("rerank", "not_configured", "no reranker is configured")
            return hits, None
        first, pool = [hit.score for hit in hits[: how.depth]], context.request.pool_size
        book = _Book(context, self._reranker, self._pace, hits[: how.depth])
        with context.timings.stage("rerank"):
            await book.read_until(min(AGREEMENT_SAMPLE, len(first)))
            blend = RerankBlend(first, trusted_weight(first, book.relevance, how.weight))
            while book.open and not blend.settled(book.relevance, pool):
                await book.read_until(blend.horizon(book.relevance, pool))
        if not book.read:
            return hits, None
        skipped = len(first) - book.read if blend.settled(book.relevance, pool) else 0
        metrics.RERANK_SKIPPED.inc(skipped)
        reread = RerankSummary(read=book.read, skipped=skipped, truncated=book.truncated, weight=blend.weight)
        return _blended(hits, blend, book.relevance), reread


class _Book:
    """What the cross-encoder has read of the first hits of a search, within what the budget allows.

    `relevance`: of those that were read; `truncated`: how many of them had to be cut; `open`: may it read on?
    """

    def __init__(self, context: SearchContext, reranker: Reranker, pace: "RerankPace", head: Sequence[Hit]) -> None:
        self._context = context
        self._reranker = reranker
        self._pace = pace
        self._head = head
        self.relevance: list[float] = []
        self.truncated = 0
        self.open = True

    @property
    def read(self) -> int:
        return len(self.relevance)

    async def read_until(self, count: int) -> None:
        """So many hits at least, unless the budget or the reranker is at its end: then the answer says so."""
        while self.open and self.read < count:
            await self._read_on(count - self.read)

    async def _read_on(self, wanted: int) -> None:
        left = self._context.left()
        # What is wanted anyway is packed best as a whole; a deadline is met best in portions.
        size = max(wanted, self._reranker.portion) if left is None else self._fitting(left)
        hits = self._head[self.read : self.read + size]
        if not hits:
            self._end(_note_budget)
            return
        started = time.perf_counter()
        try:
            async with asyncio.timeout(left):
                reading = await _read(self._context.request, self._reranker, hits)
        except TimeoutError:
            self._pace.learn(time.perf_counter() - started, len(hits))  # at least so long
            self._end(_note_budget)
        except (Unavailable, Overloaded) as error:
            self._end(partial(_note_failure, error))
        else:
            self._pace.learn(time.perf_counter() - started, len(hits))
            self.relevance += reading.scores
            self.truncated += reading.truncated

    def _fitting(self, left: float) -> int:
        return min(self._reranker.portion, self._pace.fitting(left))

    def _end(self, note: Callable[[SearchContext, int, int], None]) -> None:
        self.open = False
        note(self._context, self.read, len(self._head))


async def _read(request: SearchRequest, reranker: Reranker, hits: Sequence[Hit]) -> RerankScores:
    """Each passage with the question that counts most for its hit."""
    asked: dict[str, list[int]] = {}
    for at, hit in enumerate(hits):
        asked.setdefault(request.model_text(request.rerank_query(hit.explanation)), []).append(at)
    scores = [0.0] * len(hits)
    truncated = 0
    for question, places in asked.items():
        reading = await reranker.read(question, [_passage(hits[at]) for at in places])
        truncated += reading.truncated
        for at, score in zip(places, reading.scores, strict=True):
            scores[at] = score
    return RerankScores(scores=tuple(scores), truncated=truncated)


def _passage(hit: Hit) -> str:
    return f"{hit.title}\n{hit.text}" if hit.title else hit.text


@dataclass(slots=True)
class RerankPace:
    """How long reading a passage takes here, waiting for others included; learnt from portion to portion."""

    seconds: float | None = None
    """A passage; None before the first."""

    def fitting(self, left: float) -> int:
        """How many passages can be read in so many seconds, as far as is known.

        Where that is none, the pace is taken to be a little better at the next search: it may have been learnt while
        a model was loaded or much was waiting, and would never be learnt anew.
        """
        if not self.seconds:
            return 1_000 if left > 0 else 0
        count = int(max(0.0, left) / self.seconds)
        if not count:
            self.seconds *= 0.9
        return count

    def learn(self, seconds: float, passages: int) -> None:
        latest = seconds / passages
        self.seconds = latest if self.seconds is None else 0.5 * self.seconds + 0.5 * latest


def _blended(hits: Sequence[Hit], blend: RerankBlend, relevance: Sequence[float]) -> list[Hit]:
    """Those that were read by their final score, then the others."""
    ranks = {at: rank for rank, at in enumerate(sorted(range(len(relevance)), key=lambda at: -relevance[at]), start=1)}
    read = [
        replace(
            hits[at],
            score=blend.score(at, one),
            explanation=replace(
                hits[at].explanation,
                rerank=RerankExplanation(rank=ranks[at], score=one, share=blend.share(one)),
            ),
        )
        for at, one in enumerate(relevance)
    ]
    read.sort(key=lambda hit: (-hit.score, hit.id, hit.chunk))
    floor = read[-1].score
    return read + [replace(hit, score=blend.unread(hit.score, floor)) for hit in hits[len(relevance) :]]


def _note_budget(context: SearchContext, read: int, wanted: int) -> None:
    budget = f"the budget of {context.request.budget_ms:g} ms"
    if read:
        context.note("rerank", "cut_short", f"{budget} allowed {read} of {wanted} passages")
    else:
        context.note("rerank", "budget", f"{budget} was spent")


def _note_failure(error: Unavailable | Overloaded, context: SearchContext, read: int, wanted: int) -> None:
    if read:
        context.note("rerank", "cut_short", f"{read} of {wanted} passages were read: {error.detail}")
    else:
        context.note("rerank", type(error).__name__, error.detail)
