"""Find the items that make a batch fail, by bisection."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from service.core.errors import Unavailable

T = TypeVar("T")


async def bisect_failures(
    items: Sequence[T], attempt: Callable[[Sequence[T]], Awaitable[None]]
) -> list[tuple[T, Exception]]:
    """The items that fail alone, each with its error; `attempt` succeeded for all others.

    A batch of n with one culprit takes about 2 log2(n) attempts. Unavailable (the model, or the service that runs it)
    is not the fault of an item: a half that meets it is not halved again, or each of its items would wait in vain.
    """
    failed: list[tuple[T, Exception]] = []
    halves = [items] if len(items) == 1 else [items[: len(items) // 2], items[len(items) // 2 :]]
    for half in halves:
        if not half:
            continue
        try:
            await attempt(half)
        except Unavailable as error:
            failed += [(item, error) for item in half]
        except Exception as error:  # of any kind: finding it is the purpose
            failed += [(half[0], error)] if len(half) == 1 else await bisect_failures(half, attempt)
    return failed
