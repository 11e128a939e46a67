"""The state of one search while it runs: its request, its timings, and what had to be left out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from service.core.errors import Overloaded, TimedOut, Unavailable
from service.core.ids import DocumentId
from service.core.search import Degradation, SearchRequest
from service.core.timings import Timings
from service.spaces.resolver import Space

PARTIAL_CODES = frozenset({"query_truncated", "incomplete", "lagging", "rebuilding", "cut_short", "behind"})
"""Codes of stages that ran, though not over everything."""
FILTER_GRACE_SECONDS = 1.0
"""What a filter may take beyond the budget: what was once listed is known to the searches after it."""

T = TypeVar("T")


@dataclass(slots=True)
class SearchContext:
    """`live`: a client waits for the answer. Other searches (shadow traffic, evaluations) are left out of metrics."""

    request: SearchRequest
    space: Space
    live: bool = True
    timings: Timings = field(default_factory=Timings)
    degraded: list[Degradation] = field(default_factory=list)
    stale: int = 0
    unmatched_terms: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    """Constraints that left no document and are read as words instead."""
    texts: dict[tuple[DocumentId, int], str] = field(default_factory=dict)
    """What was read of whole documents, by id and revision of the content."""

    def has_failed(self, stage: str) -> bool:
        return any(one.stage == stage and one.code not in PARTIAL_CODES for one in self.degraded)

    def only_over_budget(self) -> bool:
        """Whether no stage failed: whatever was left out, was left out because the budget was spent."""
        return all(one.code in PARTIAL_CODES | {"budget"} for one in self.degraded)

    async def run_stage(self, stage: str, work: Awaitable[T], *, optional: bool, in_budget: bool = True) -> T | None:
        """Time a stage and return its result; None where an optional stage failed or exceeded the budget."""
        seconds = self.remaining_seconds() if optional and in_budget else None
        with self.timings.stage(stage):
            try:
                async with asyncio.timeout(seconds):
                    return await work
            except TimeoutError:
                self.degrade(stage, "budget", f"the budget of {self.request.budget_ms:g} ms was spent")
            except (Unavailable, Overloaded) as error:
                if not optional:
                    raise
                self.degrade(stage, type(error).__name__, error.detail)
        return None

    @asynccontextmanager
    async def filter_deadline(self) -> AsyncIterator[None]:
        """TimedOut where the statements of a search with a filter go on after its budget and the grace."""
        remaining = None if self.request.where is None else self.remaining_seconds()
        try:
            async with asyncio.timeout(None if remaining is None else remaining + FILTER_GRACE_SECONDS):
                yield
        except TimeoutError as error:
            what = f"the filter was not evaluated within the budget of {self.request.budget_ms:g} ms"
            raise TimedOut(f"{what}: declare its fields as `indexed`, or ask for less") from error

    def remaining_seconds(self) -> float | None:
        """Seconds left of the budget, at least 0; None for a search without a budget."""
        budget = self.request.budget_ms
        return None if budget is None else max(0.0, budget / 1000 - self.timings.elapsed)

    def degrade(self, stage: str, code: str, reason: str) -> None:
        """Report in the answer that a stage could not do its part, or not all of it."""
        self.degraded.append(Degradation(stage=stage, code=code, reason=reason))
