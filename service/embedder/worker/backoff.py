"""Pauses that grow while trouble lasts, never the same for two workers."""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Doubles from `first` to `most` seconds; each pause is drawn from the upper half, so that workers spread out."""

    first: float = 1.0
    most: float = 30.0
    failures: int = 0

    def failed(self) -> float:
        """Count a failure; answers how long to pause."""
        longest = min(self.most, self.first * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return random.uniform(longest / 2, longest)  # noqa: S311 not a secret

    def worked(self) -> None:
        self.failures = 0
