from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankScores:
    """What a cross-encoder made of passages: the probability of each to be relevant, in their order.

    `truncated`: of how many it did not see everything, for they are longer than it takes with the query.
    """

    scores: tuple[float, ...]
    truncated: int = 0


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
