"""Which texts share a forward pass. Pure.

A batch is padded to its longest text, so it costs longest x count, whatever the rest measure. Sorted by length,
neighbours are alike and little of that is padding.
"""

import math
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


def cheapest_packing(lengths: Sequence[int], budget: int, overhead: int) -> list[list[int]]:
    """Indices of `lengths` in the batches that cost the least together, longest texts first.

    A pass costs its padded tokens, and as much as `overhead` tokens for being one more. As in `pack`, each index comes
    once, no pass is above the budget, and a text that is longer than it goes alone. Neighbours in length share a pass
    in the best packing, so it is found by dynamic programming over the sorted lengths: quadratic, for the few passages
    of one query.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    least: list[float] = [0.0]  # of the first n in order
    begins: list[int] = [0]  # of the last of their batches
    for end in range(1, len(order) + 1):
        best, begin = math.inf, end - 1
        for start in range(end - 1, -1, -1):
            padded = lengths[order[start]] * (end - start)
            if padded > budget and end - start > 1:
                break
            if least[start] + padded + overhead < best:
                best, begin = least[start] + padded + overhead, start
        least.append(best)
        begins.append(begin)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]
