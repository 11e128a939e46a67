"""What a benchmark says: percentiles, ratios and tables on the terminal. Times go in as seconds and come out as ms."""

import math
import statistics
from collections.abc import Sequence


def percentile(seconds: Sequence[float], share: float) -> float:
    """Nearest rank, in milliseconds."""
    ordered = sorted(seconds)
    return 1e3 * ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(seconds: Sequence[float]) -> float:
    """In milliseconds."""
    return 1e3 * statistics.median(seconds)


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned, the first column to the left and all others to the right."""
    cells = [[_shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (list(columns), *cells):
        first, *others = row
        aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  " + "  ".join([first.ljust(widths[0]), *aligned]).rstrip(), flush=True)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
