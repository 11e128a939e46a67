from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.core.relevance import RelevanceCalibration


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankScores:
    """What a cross-encoder made of passages: the probability of each to be relevant, in their order.

    `truncated`: how many passages it read without their end, because they are longer than it takes with the query.
    `query_share`: how much of the query it read with each of them, at least: below 1 where the query was cut.
    `tokens`: of all pairs, as read. `calibration`: see `service.core.relevance`; None for a reranker that has none.
    """

    scores: tuple[float, ...]
    truncated: int = 0
    query_share: float = 1.0
    tokens: int = 0
    calibration: RelevanceCalibration | None = None


def query_cut_reason(query_share: float) -> str:
    """Tell whoever asked that the query was cut."""
    return f"the query is longer than the reranker takes: it read {query_share:.0%} of it, the beginning and the end"


class Reranker(Protocol):
    """A cross-encoder: reads query and passage together."""

    @property
    def name(self) -> str: ...

    @property
    def portion(self) -> int:
        """Passages of one `read` that suit the device it runs on, for who can do with less than all."""

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        """Judge each passage. Cancelled, it leaves out what has not begun yet.

        ModelUnavailable where the model cannot be loaded or fails, Overloaded where too much waits for it.
        """
