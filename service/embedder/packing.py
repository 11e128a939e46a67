"""Which texts share a forward pass. Pure.

A batch is padded to its longest text, so it costs longest x count, whatever the rest measure. Sorted by length,
neighbours are alike and little of that is padding.
"""

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in batches whose padded cost is within `budget`, longest texts first.

    Each index comes once. A text longer than the budget goes alone: it must not wait for a budget that never comes.
    Longest first, so that a batch that the memory cannot hold shows at once.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches
