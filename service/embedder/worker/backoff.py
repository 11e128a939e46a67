"""Exponential backoff with jitter."""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays that double from `initial` to `maximum` seconds; each is drawn from the upper half, to spread workers."""

    initial: float = 1.0
    maximum: float = 30.0
    failures: int = 0

    def next_delay(self) -> float:
        """Count a failure; the seconds to wait."""
        longest = min(self.maximum, self.initial * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return random.uniform(longest / 2, longest)  # noqa: S311 not a secret

    def reset(self) -> None:
        self.failures = 0
