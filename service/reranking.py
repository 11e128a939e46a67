"""The second stage: a cross-encoder reads query and passage together, and is blended with what the legs said.

Passages are read in portions, in the order of the first stage. Between two portions it is asked whether another one can
still change the answer, and whether the budget allows it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service import metrics
from service.blending import Blend
from service.course import Course
from service.domain import Reranking
from service.errors import Overloaded, Unavailable
from service.ports import Reading, Reranker
from service.query import Hit, Request, RerankExplanation, Reread


class SecondStage:
    """Over the first hits of a search; without a reranker it says so in the answer."""

    def __init__(self, reranker: Reranker | None) -> None:
        self._reranker = reranker
        self._pace = Pace()

    async def order(self, course: Course, how: Reranking | None, hits: list[Hit]) -> tuple[list[Hit], Reread | None]:
        """The hits by their blended scores, as far as the cross-encoder could read; the others behind them in order."""
        if how is None or not hits:
            return hits, None
        if self._reranker is None:
            course.note("rerank", "not_configured", "no reranker is configured")
            return hits, None
        head = hits[: how.depth]
        blend = Blend([hit.score for hit in head], how.weight)
        with course.timings.stage("rerank"):
            relevance, truncated = await self._read(course, self._reranker, head, blend)
        if not relevance:
            return hits, None
        skipped = len(head) - len(relevance) if blend.settled(relevance, course.request.pool) else 0
        metrics.RERANK_SKIPPED.inc(skipped)
        reread = Reread(read=len(relevance), skipped=skipped, truncated=truncated)
        return _blended(hits, blend, relevance), reread

    async def _read(
        self, course: Course, reranker: Reranker, head: Sequence[Hit], blend: Blend
    ) -> tuple[list[float], int]:
        """The relevance of the first hits of `head`: of as many as matter, within what the budget allows.

        And how many of them had to be cut.
        """
        texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in head]
        relevance: list[float] = []
        truncated = 0
        while not blend.settled(relevance, course.request.pool):
            left, size = course.left(), reranker.portion
            if left is not None:
                size = min(size, self._pace.fitting(left))
            elif relevance:
                # Where no exit is in sight, the rest is packed best as a whole.
                size = max(size, blend.horizon(relevance, course.request.pool) - len(relevance))
            portion = texts[len(relevance) :][:size]
            if not portion:
                _note_budget(course, len(relevance), len(texts))
                break
            started = time.perf_counter()
            try:
                async with asyncio.timeout(left):
                    reading = await _read(course.request, reranker, head[len(relevance) :], portion)
            except TimeoutError:
                self._pace.learn(time.perf_counter() - started, len(portion))  # at least so long
                _note_budget(course, len(relevance), len(texts))
                break
            except (Unavailable, Overloaded) as error:
                _note_failure(course, error, len(relevance), len(texts))
                break
            self._pace.learn(time.perf_counter() - started, len(portion))
            relevance += reading.scores
            truncated += reading.truncated
        return relevance, truncated


async def _read(request: Request, reranker: Reranker, hits: Sequence[Hit], portion: Sequence[str]) -> Reading:
    """Each passage with the question that counts most for its hit; `portion` is of the first of `hits`."""
    asked: dict[str, list[int]] = {}
    for at, hit in zip(range(len(portion)), hits, strict=False):
        asked.setdefault(request.meant(request.read_with(hit.explanation)), []).append(at)
    scores = [0.0] * len(portion)
    truncated = 0
    for question, places in asked.items():
        reading = await reranker.read(question, [portion[at] for at in places])
        truncated += reading.truncated
        for at, score in zip(places, reading.scores, strict=True):
            scores[at] = score
    return Reading(scores=tuple(scores), truncated=truncated)


@dataclass(slots=True)
class Pace:
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


def _blended(hits: Sequence[Hit], blend: Blend, relevance: Sequence[float]) -> list[Hit]:
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


def _note_budget(course: Course, read: int, wanted: int) -> None:
    budget = f"the budget of {course.request.budget_ms:g} ms"
    if read:
        course.note("rerank", "cut_short", f"{budget} allowed {read} of {wanted} passages")
    else:
        course.note("rerank", "budget", f"{budget} was spent")


def _note_failure(course: Course, error: Unavailable | Overloaded, read: int, wanted: int) -> None:
    if read:
        course.note("rerank", "cut_short", f"{read} of {wanted} passages were read: {error.detail}")
    else:
        course.note("rerank", type(error).__name__, error.detail)
