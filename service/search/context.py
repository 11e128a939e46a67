"""One search under way: its request, where the time went, and what had to be left out."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.core.errors import Overloaded, Unavailable
from service.core.search import Degradation, SearchRequest
from service.core.timings import Timings

PARTLY = frozenset({"truncated", "incomplete", "cut_short"})
"""Codes of stages that ran all the same, though not over everything."""

T = TypeVar("T")


class SearchContext:
    """`live`: a client waits for it. Others (shadow, evidence) are not in the metrics of searches."""

    def __init__(self, request: SearchRequest, *, live: bool = True) -> None:
        self.request = request
        self.live = live
        self.timings = Timings()
        self.degraded: list[Degradation] = []
        self.stale = 0
        self.unmatched_terms: tuple[str, ...] = ()

    def has_failed(self, stage: str) -> bool:
        return any(degradation.stage == stage and degradation.code not in PARTLY for degradation in self.degraded)

    def only_over_budget(self) -> bool:
        """Nothing failed; what was left out was left out for the budget alone."""
        return all(degradation.code in PARTLY | {"budget"} for degradation in self.degraded)

    async def attempt(
        self, stage: str, work: Callable[[], Awaitable[T]], *, optional: bool, in_budget: bool = True
    ) -> T | None:
        """The result of a timed stage. What is optional may fail or outlast the budget: then None and a note of why."""
        left = self.left() if optional and in_budget else None
        with self.timings.stage(stage):
            try:
                async with asyncio.timeout(left):
                    return await work()
            except TimeoutError:
                self.note(stage, "budget", f"the budget of {self.request.budget_ms:g} ms was spent")
            except (Unavailable, Overloaded) as error:
                if not optional:
                    raise
                self.note(stage, type(error).__name__, error.detail)
        return None

    def left(self) -> float | None:
        """Seconds of the budget that are left, at least 0; None where there is none."""
        budget = self.request.budget_ms
        return None if budget is None else max(0.0, budget / 1000 - self.timings.elapsed)

    def note(self, stage: str, code: str, reason: str) -> None:
        """Say in the answer that a stage could not do its part, or not all of it."""
        self.degraded.append(Degradation(stage=stage, code=code, reason=reason))
