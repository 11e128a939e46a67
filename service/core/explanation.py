"""How the score of a hit came about."""

from dataclasses import dataclass
from typing import Literal

from service.core.boosts import BoostExplanation


@dataclass(frozen=True, kw_only=True, slots=True)
class LegExplanation:
    """`rank`: from 1; None where the leg itself did not find the hit. `share`: the leg's part of the fused score."""

    rank: int | None
    score: float
    normalised: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankExplanation:
    """`rank` among the passages that were read. `share`: the reranker's part of the hit's score."""

    rank: int
    score: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryExplanation:
    """The place of a hit for one of several queries. `gain`: its part of the fused score."""

    dense: LegExplanation | None = None
    lexical: LegExplanation | None = None
    gain: float = 0.0
    certainty: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DiversityExplanation:
    """The `rank` of a hit by score alone, and its highest cosine to a hit above it; None if it or the hit has none."""

    rank: int
    similarity: float | None
    mmr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """How the score of a hit came about. `certainty`: of the dense leg, see `DenseCertainty`. `lexical_certainty`: see
    `QueryCandidates`. `floor`: the cosine that counts 0. `context`: see `passage_context.context_at`.

    `queries`: all of them where there were several; the legs are then of the one that contributes most to this hit.
    """

    dense: LegExplanation | None
    lexical: LegExplanation | None
    fusion: float
    certainty: float = 1.0
    lexical_certainty: float = 1.0
    floor: float = 0.0
    queries: tuple[QueryExplanation, ...] = ()
    rerank: RerankExplanation | None = None
    diversity: DiversityExplanation | None = None
    context: str = ""
    boosts: tuple[BoostExplanation, ...] = ()
    synonyms: tuple[str, ...] = ()
    """Words of passage and title that the query has by the collection's synonyms alone."""

    def raw_score(self, leg: Literal["dense", "lexical"]) -> float | None:
        """The best score of a leg for any query; None where it has none of the hit."""
        found = [one.dense if leg == "dense" else one.lexical for one in self.queries or (self,)]
        if len(found) == 1:
            return found[0].score if found[0] is not None else None
        return max((one.score for one in found if one is not None), default=None)
