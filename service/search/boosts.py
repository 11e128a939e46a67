"""Boosts in a search: what metadata adds to the fused scores, of all candidates and before the reranker."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from service.core import boosts
from service.core.boosts import BoostExplanation
from service.core.ports.documents import Documents
from service.search.context import SearchContext
from service.search.fusion import FusedItem, Ranking
from service.search.ordering import Reordered
from service.search.retrievers import Item


class BoostedRanking(Reordered):
    """By the fused scores and the shares of the boosts, which together are the scores of its items.

    `values`: of each boost, what it finds in each item.
    """

    def __init__(self, ranking: Ranking[Item], weights: Sequence[float], values: Sequence[Sequence[float]]) -> None:
        shares = [[weight * one for one in of_boost] for weight, of_boost in zip(weights, values, strict=True)]
        scores = list(map(math.fsum, zip(ranking.scores, *shares, strict=True)))
        places = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
        super().__init__(ranking, places)
        self.scores = [scores[at] for at in places]
        self._values, self._shares = values, shares

    def __getitem__(self, page: slice) -> list[FusedItem[Item]]:
        return [
            replace(one, score=score, explanation=replace(one.explanation, boosts=self._explained(place)))
            for one, score, place in zip(super().__getitem__(page), self.scores[page], self._order[page], strict=True)
        ]

    def _explained(self, place: int) -> tuple[BoostExplanation, ...]:
        pairs = zip(self._values, self._shares, strict=True)
        return tuple(BoostExplanation(value=values[place], share=shares[place]) for values, shares in pairs)


async def boost_ranking(documents: Documents, context: SearchContext, ranking: Ranking[Item]) -> Ranking[Item]:
    """The ranking by boosted scores; unchanged where the request has no boosts."""
    request = context.request
    if not request.boosts or not len(ranking):
        return ranking
    with context.timings.stage("boost"):
        found = await documents.metadata(context.space.collection.id, list({document for document, _ in ranking.items}))
        now = time.time()
        each = [boosts.values(boost, found, now, f"boost.{at}") for at, boost in enumerate(request.boosts)]
        values = [[one.get(document, 0.0) for document, _ in ranking.items] for one in each]
        return BoostedRanking(ranking, [boost.weight for boost in request.boosts], values)
