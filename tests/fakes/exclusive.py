"""A lock that only one caller at a time holds."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


@asynccontextmanager
async def exclusive(held: set[Hashable], key: Hashable) -> AsyncIterator[bool]:
    """True for the one who holds `key`, as long as the block lasts."""
    free = key not in held
    held.add(key)
    try:
        yield free
    finally:
        if free:
            held.discard(key)
