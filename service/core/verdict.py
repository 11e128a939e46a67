"""One scale for all that is judged: healthy, watch, broken."""

from typing import Literal

Verdict = Literal["healthy", "watch", "broken"]


VERDICTS: tuple[Verdict, ...] = ("healthy", "watch", "broken")
"""From good to bad; the place is the value of `azimuth_geometry_verdict`."""
