"""Which texts share a forward pass. Pure.

A batch is padded to its longest text, so it costs longest x count. Sorted by length, neighbouring texts are of similar
length and need little padding.
"""

from collections.abc import Sequence

import numpy as np


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
    groups neighbours in length, so dynamic programming over the sorted lengths finds it, in time that grows with the
    texts and with how many of them fit the budget: some microseconds each.
    """
    order = _longest_first(lengths)
    sizes, at = np.array([lengths[index] for index in order]), np.arange(len(order))
    # The first n in order cost least[n]. With a last batch from `start` on, this is
    # least[start] + sizes[start] * (n - start) + overhead, of which `fixed` does not depend on n.
    fixed = -sizes * at
    starts, first, least = [], 0, 0
    for end in range(1, len(order) + 1):
        fixed[end - 1] += least
        while first < end - 1 and sizes[first] * (end - first) > budget:
            first += 1
        costs = fixed[first:end] + sizes[first:end] * end
        best = int(costs.argmin())
        starts.append(first + best)
        least = int(costs[best]) + overhead
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[starts[end - 1] : end])
        end = starts[end - 1]
    return batches[::-1]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])
