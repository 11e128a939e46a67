"""What a search may ask of its answer beside the best k: thresholds, an order by fields, text around the hits."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class MinScore:
    """The least that a hit must have of each of its scores; None: anything will do. See the fields of `Hit`."""

    score: float | None = None
    cosine: float | None = None
    bm25: float | None = None
    relevance: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SortKey:
    """A declared field whose values order the hits. Of several values the one counts that comes first."""

    field: str
    descending: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """How many chunks before and after that of a hit are shown with it."""

    before: int = 0
    after: int = 0


TextAround = Neighbours | Literal["parent"]
"""`parent`: as much of the document as is shown at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SurroundingText:
    """`text[start:end]` of a document, in code points, around and with a hit."""

    text: str
    start: int
    end: int
