"""The order and the choice of hits by what the request says beside relevance: thresholds, fields, pages."""

from collections.abc import Sequence
from dataclasses import astuple

from service.core.ports.documents import Documents
from service.core.result_options import MinScore
from service.core.search import Candidate, Hit
from service.search.candidates import CandidateSet
from service.search.context import SearchContext
from service.search.fusion import FusedItem, Ranking
from service.search.retrievers import Item


class Reordered(Ranking[Item]):
    """Some of the items of a ranking, by their places in it."""

    def __init__(self, ranking: Ranking[Item], places: Sequence[int]) -> None:
        self._ranking, self._order = ranking, places
        self.items, self.scores = [ranking.items[at] for at in places], [ranking.scores[at] for at in places]

    def __getitem__(self, page: slice) -> list[FusedItem[Item]]:
        return [self._ranking[at : at + 1][0] for at in self._order[page]]


async def sort_ranking(documents: Documents, context: SearchContext, ranking: Ranking[Item]) -> Ranking[Item]:
    """The ranking in the order of the fields of `sort`; unchanged where there are none."""
    request = context.request
    if not request.sort:
        return ranking
    places: dict[str, list[int]] = {}
    for at, (document, _) in enumerate(ranking.items):
        places.setdefault(document, []).append(at)
    ids = list(dict.fromkeys(document for document, _ in ranking.items))
    work = documents.in_order(context.space.collection.id, request.sort, request.where, 0, len(ids), ids)
    with context.timings.stage("sort"):
        found = await work
    return Reordered(ranking, [at for one in found for at in places[one.document_id]])


def drop_candidates(candidates: CandidateSet, least: MinScore | None, *, by_chunk: bool) -> CandidateSet:
    """Without those whose best cosine or BM25 score over all queries is too low, so that others take their places."""
    if least is None or (least.cosine, least.bm25) == (None, None):
        return candidates

    def key(one: Candidate) -> Item:
        return (one.document_id, one.chunk if by_chunk else None)

    dense = [one for query in candidates.queries for one in query.dense_candidates.values()]
    lexical = [
        one
        for query in candidates.queries
        for found in (query.lexical_candidates, query.lexical_lookups)
        for one in found.values()
    ]
    near = {key(one) for one in dense if least.cosine is None or one.score >= least.cosine}
    near_documents = {document for document, _ in near}
    told = {one.document_id for one in lexical if least.bm25 is None or one.score >= least.bm25}

    def keep(one: Candidate) -> bool:
        is_near = one.document_id in near_documents if one.chunk is None else key(one) in near
        return (least.cosine is None or is_near) and (least.bm25 is None or one.document_id in told)

    return CandidateSet(queries=tuple(query.filtered(keep) for query in candidates.queries))


def page(context: SearchContext, hits: Sequence[Hit]) -> list[Hit]:
    """The hits that reach every threshold, from `offset` on as far as the answer is chosen from them."""
    request = context.request
    kept = hits if request.min_score is None else [hit for hit in hits if _reaches(hit, request.min_score)]
    return list(kept[request.offset : request.pool_size])


def _reaches(hit: Hit, least: MinScore) -> bool:
    scores = (hit.score, hit.cosine, hit.bm25, hit.relevance)
    bounds = astuple(least)
    return all(
        bound is None or (score is not None and score >= bound) for score, bound in zip(scores, bounds, strict=True)
    )
