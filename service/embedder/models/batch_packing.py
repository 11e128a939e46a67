"""Which texts share a forward pass. Pure.

A batch is padded to its longest text, so it costs longest x count. Sorted by length, neighbouring texts are of similar
length and need little padding.
"""

import math
from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in batches whose padded cost is within `budget`, longest texts first.

    Each index comes once; a text longer than the budget gets a batch of its own. The longest texts come first so that
    a batch that exceeds the memory shows at once.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in _longest_first(lengths):
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def cheapest_packing(lengths: Sequence[int], budget: int, overhead: int) -> list[list[int]]:
    """Indices of `lengths` in the batches with the least total cost, longest texts first.

    A pass costs its padded tokens and a fixed `overhead` in tokens. The bounds are those of `pack`. The best packing
    groups neighbours in length, so dynamic programming over the sorted lengths finds it, in quadratic time: meant for
    the few passages of one query.
    """
    order = _longest_first(lengths)
    least: list[float] = [0.0]  # cost of the first n in order
    starts: list[int] = [0]  # start of the last of their batches
    for end in range(1, len(order) + 1):
        best, best_start = math.inf, end - 1
        for start in range(end - 1, -1, -1):
            padded = lengths[order[start]] * (end - start)
            if padded > budget and end - start > 1:
                break
            if least[start] + padded + overhead < best:
                best, best_start = least[start] + padded + overhead, start
        least.append(best)
        starts.append(best_start)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[starts[end] : end])
        end = starts[end]
    return batches[::-1]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])
