"""Whose pass comes next: of one encoder as many at once as it says itself, and live ones before those of a backfill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.core.jobs import Lane
from service.core.ports.embedder import Encoder

STREAMS = 2
"""Most passes of one lane at once, whatever an encoder says."""


class PriorityGate:
    """Shared by both lanes. Who waits with a live pass waits for at most one that runs already."""

    def __init__(self) -> None:
        self._doors: dict[int, _Door] = {}

    @asynccontextmanager
    async def turn(self, encoder: Encoder, lane: Lane) -> AsyncIterator[None]:
        """Hold one of the encoder's streams for as long as the block lasts."""
        door = self._doors.setdefault(id(encoder), _Door(max(1, min(STREAMS, encoder.streams))))
        door.users += 1
        try:
            await door.enter(lane)
            try:
                yield
            finally:
                await door.leave()
        finally:
            door.users -= 1
            if not door.users:  # another encoder may get the same id
                del self._doors[id(encoder)]


class _Door:
    def __init__(self, free: int) -> None:
        self.users = 0
        self._free = free
        self._live = 0
        self._changed = asyncio.Condition()

    async def enter(self, lane: Lane) -> None:
        live = lane == "live"
        async with self._changed:
            self._live += live
            try:
                await self._changed.wait_for(lambda: self._free > 0 and (live or not self._live))
                self._free -= 1
            finally:
                self._live -= live
                self._changed.notify_all()

    async def leave(self) -> None:
        async with self._changed:
            self._free += 1
            self._changed.notify_all()
