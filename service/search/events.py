"""What a live search reports to its observers, such as the recall monitor and the drift detection."""

from dataclasses import dataclass
from typing import Protocol

from service.core.ids import Vector
from service.core.search import Confidence, DensePlan, FilterMatch, SearchRequest
from service.spaces.resolver import Space


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEvent:
    """`vectors`: one for each query, None where its dense leg did not run. `width`: candidates requested of each leg.

    `best_cosine`, `best_bm25`: the highest score of each leg, None where it did not run or found nothing.
    """

    space: Space
    request: SearchRequest
    vectors: tuple[Vector | None, ...]
    plan: DensePlan
    filter_match: FilterMatch | None
    width: int
    confidence: Confidence
    best_cosine: float | None
    best_bm25: float | None


class SearchObserver(Protocol):
    """Is informed of every live search that was answered."""

    def on_search(self, event: SearchEvent) -> None:
        """Must take microseconds, never wait and never raise: a client is waiting for the answer."""
