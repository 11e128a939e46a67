"""How sure it is that the question of a search is one for the collection: the version's calibration, applied.

Nothing is asked of a model for it: the legs have found what there is, and their best scores say the rest.
"""

from service.core.errors import Unavailable
from service.core.ports.lexicon import Lexicon
from service.core.search import Confidence, Query, SearchRequest
from service.core.versions import Calibration
from service.search.candidates import CandidateSet, QueryCandidates
from service.search.context import SearchContext
from service.spaces.resolver import Space

MIN_CHUNKS = 50
"""Chunks below which nothing is learnt: a sample of so few says little of what else might be asked."""


class ConfidenceAssessor:
    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    async def of(self, space: Space, context: SearchContext, found: CandidateSet) -> Confidence:
        """Of several questions the surest one. `in_domain` None, with the reason, where it cannot be told.

        `withheld` where the request wants more.
        """
        untold = _untold(space, context, found)
        calibration = space.version.calibration
        if untold is not None or calibration is None:
            return _silent(context, untold)
        with context.timings.stage("confidence"):
            sure = [
                await self._one(space, context, calibration, query, one)
                for query, one in zip(context.request.effective_queries, found.queries, strict=True)
                if one.by_meaning
            ]
        if not sure:
            return _silent(context, "the dense leg found nothing")
        least, surest = context.request.min_confidence, max(sure)
        if least is None or surest >= least:
            return Confidence(in_domain=surest)
        reason = f"in_domain is {surest:.3f}, below the min_confidence of {least:g}"
        return Confidence(in_domain=surest, withheld=True, reason=reason)

    async def _one(
        self, space: Space, context: SearchContext, calibration: Calibration, query: Query, found: QueryCandidates
    ) -> float:
        cosine = max(one.score for one in found.by_meaning.values())
        if calibration.both is not None and found.lexical is not None:
            ceiling = await self._ceiling(space, context.request.for_query(query))
            if ceiling > 0:
                score = max((one.score for one in found.by_words.values()), default=0.0)
                return calibration.both.probability((cosine, score / ceiling))
        assert calibration.dense is not None  # `_untold` saw to it
        return calibration.dense.probability((cosine,))

    async def _ceiling(self, space: Space, alone: SearchRequest) -> float:
        """0 where the index was lost since the leg ran: its answer stands, and the cosine tells enough."""
        try:
            return await self._lexicon.max_score(space.collection, alone.parsed_query)
        except Unavailable:
            return 0.0


def _silent(context: SearchContext, reason: str | None) -> Confidence:
    """Nothing can be said. Who wants a least confidence is told that it was not held."""
    if context.request.min_confidence is not None:
        context.note("confidence", "untold", f"min_confidence was not held: {reason}")
    return Confidence(in_domain=None, reason=reason)


def _untold(space: Space, context: SearchContext, found: CandidateSet) -> str | None:
    """Why nothing can be said, where that is so."""
    request, version = context.request, space.version
    if version.spec.external:
        return "the client makes the vectors of this version: there is no model to learn with"
    if request.like is not None:
        return "examples are no question"
    if request.mode == "lexical":
        return "words alone do not tell: it takes the dense leg"
    if version.calibration is None:
        if space.status.rows < MIN_CHUNKS:
            return f"it takes {MIN_CHUNKS} chunks to learn from, and there are {space.status.rows}"
        return "not learnt yet"
    if version.calibration.dense is None:
        return version.calibration.reason
    if all(one.dense is None for one in found.queries):
        return "the dense leg did not answer"
    return None
