"""What a live search leaves behind for those who watch: question, vectors, plan, and what its best finds were."""

from dataclasses import dataclass
from typing import Protocol

from service.core.ids import Vector
from service.core.search import Confidence, DensePlan, FilterMatch, SearchRequest
from service.spaces.resolver import Space


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEvent:
    """`vectors`: of each question, None where the dense leg did not ask it. `passing`: what the filter lets pass.
    `width`: candidates that each leg was asked for.

    `best_cosine`, `best_words`: the highest score of each leg, None where it did not run or found nothing.
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
    """Somebody who is told of every live search that was answered."""

    def on_search(self, observed: SearchEvent) -> None:
        """Costs microseconds, never waits, never raises: a client is waiting for the answer."""
        ...
