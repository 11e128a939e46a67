"""Order of forward passes: as many at once as an encoder allows, and live passes before those of a backfill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from service.core.jobs import Lane
from service.core.ports.embedder import Encoder

MAX_STREAMS = 2
"""Most passes of one lane at once, whatever an encoder allows."""


class PriorityGate:
    """Shared by both lanes. A live pass waits for at most one pass that already runs."""

    def __init__(self) -> None:
        self._slots: WeakKeyDictionary[Encoder, _Slots] = WeakKeyDictionary()

    @asynccontextmanager
    async def slot(self, encoder: Encoder, lane: Lane) -> AsyncIterator[None]:
        """Hold one of the encoder's streams while the block runs."""
        slots = self._slots.setdefault(encoder, _Slots(max(1, min(MAX_STREAMS, encoder.streams))))
        await slots.acquire(lane)
        try:
            yield
        finally:
            await slots.release()


class _Slots:
    """The streams of one encoder."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._live_waiting = 0
        self._changed = asyncio.Condition()

    async def acquire(self, lane: Lane) -> None:
        live = lane == "live"
        async with self._changed:
            self._live_waiting += live
            try:
                await self._changed.wait_for(lambda: self._free > 0 and (live or not self._live_waiting))
                self._free -= 1
            finally:
                self._live_waiting -= live
                self._changed.notify_all()

    async def release(self) -> None:
        async with self._changed:
            self._free += 1
            self._changed.notify_all()
