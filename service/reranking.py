"""The second look: a cross-encoder reads query and passage together, and is blended with what the legs said."""

import dataclasses

from service.course import Course
from service.domain import Reranking
from service.ports import Reranker
from service.query import Hit, RerankExplanation


class SecondStage:
    """Over the first hits of a search; without a reranker it says so in the answer."""

    def __init__(self, reranker: Reranker | None) -> None:
        self._reranker = reranker

    async def order(self, course: Course, how: Reranking | None, hits: list[Hit]) -> tuple[list[Hit], bool]:
        """Blend the first stage with a cross-encoder over the first `depth`; the others stay behind them in order."""
        reranker = self._reranker
        if how is None or not hits:
            return hits, False
        if reranker is None:
            course.note("rerank", "not_configured", "no reranker is configured")
            return hits, False
        head, tail = hits[: how.depth], hits[how.depth :]
        texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in head]
        scores = await course.attempt("rerank", lambda: reranker.score(course.request.text, texts), optional=True)
        if scores is None:
            return hits, False
        best_first = sorted(range(len(head)), key=lambda at: -scores[at])
        blended = [
            dataclasses.replace(
                head[at],
                score=(1 - how.weight) * head[at].score + how.weight * scores[at],
                explanation=dataclasses.replace(
                    head[at].explanation, rerank=RerankExplanation(rank=rank, score=scores[at])
                ),
            )
            for rank, at in enumerate(best_first, start=1)
        ]
        blended.sort(key=lambda hit: (-hit.score, hit.id))
        floor = blended[-1].score
        unread = [dataclasses.replace(hit, score=min(floor, (1 - how.weight) * hit.score)) for hit in tail]
        return blended + unread, True
