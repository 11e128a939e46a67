"""Long lists in portions of bounded size."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def portions(items: Sequence[T], size: Callable[[T], int], most: int) -> Iterator[Sequence[T]]:
    """Split items, in order, into portions of at most `most` in size together, or of one item."""
    start = total = 0
    for at, item in enumerate(items):
        own = size(item)
        if at > start and total + own > most:
            yield items[start:at]
            start, total = at, 0
        total += own
    yield items[start:]
