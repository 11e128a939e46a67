"""One scale of health for every measure: healthy, watch, broken."""

from collections.abc import Iterable
from typing import Literal

Verdict = Literal["healthy", "watch", "broken"]

VERDICTS: tuple[Verdict, ...] = ("healthy", "watch", "broken")
"""From best to worst. The position in this tuple is the value of the verdict metrics."""


def worst_verdict(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The worst of the verdicts that were reached; None where there is none."""
    return max((one for one in verdicts if one is not None), key=VERDICTS.index, default=None)
