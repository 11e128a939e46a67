"""What a live search reports to its observers, such as the recall monitor and the drift detection."""

from dataclasses import dataclass
from typing import Protocol

from service.core import metrics
from service.core.ids import Vector
from service.core.search import Confidence, DensePlan, FilterMatch, SearchRequest
from service.search.context import SearchContext
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


def record_metrics(context: SearchContext, event: SearchEvent) -> None:
    name, version = event.space.collection.name, str(event.space.version.number)
    metrics.SEARCH_SECONDS.labels(name, version, context.request.mode).observe(context.timings.elapsed)
    metrics.STALE_HITS.labels(name).inc(context.stale)
    for stage, seconds in context.timings.seconds.items():
        metrics.SEARCH_STAGE_SECONDS.labels(name, stage).observe(seconds)
    for degradation in context.degraded:
        metrics.DEGRADED.labels(degradation.stage, degradation.code).inc()
    if event.plan.underfilled:
        metrics.UNDERFILLED.labels(name).inc()
    if event.confidence.in_domain is not None:
        metrics.QUERY_CONFIDENCE.labels(name).observe(event.confidence.in_domain)
    if event.confidence.withheld:
        metrics.WITHHELD.labels(name).inc()
