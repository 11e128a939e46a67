"""Statistical intervals."""

import math

Z = 1.959964
"""Standard deviations of a two-sided interval of 95 %."""


def wilson(share: float, trials: float, z: float = Z) -> tuple[float, float]:
    """The score interval of a share of so many trials (Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 1927). It stays within [0, 1], and has a width even where all trials agree."""
    if trials <= 0:
        return 0.0, 1.0
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
