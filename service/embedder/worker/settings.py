"""Settings of one worker."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from service.embedder.worker.backoff import Backoff


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """`claim`: most documents leased at once. `batch_tokens`: padded tokens of one forward pass, 0: by device.

    `grace`: how long claimed work may take to finish after the stop. `backfill_per_second`: most documents of
    backfills, 0: no limit.
    """

    claim: int
    lease: timedelta
    max_attempts: int
    batch_tokens: int = 0
    backfill_per_second: float = 0.0
    housekeeping_seconds: float = 30.0
    grace: timedelta = timedelta(seconds=20)
    backoff: Callable[[], Backoff] = Backoff
