"""When garbage is collected: not while a large request is under way.

Python stops all threads while it looks through what is alive, by itself whenever enough has been made: beside an answer
of 64 times 1,000 hits the event loop then stood still for half a second, many times. Only the youngest objects are
looked through like that here. What is older is looked through while hardly more is alive than the last time, and then
set aside (`gc.freeze`): libraries that load when they are first needed are a quarter of a million objects, which take
0.14 s each time. All is looked through once an hour.
"""

import asyncio
import ctypes
import gc
import sys
from contextlib import suppress
from time import monotonic

TRIM_SECONDS = 60.0
"""Between two calls of `trim`."""
PAUSE_SECONDS = 5.0
"""Between two calls of `collect`."""
_GROWTH = 1.2
_LATEST_SECONDS = 300.0
"""After so long it is collected however much is alive: the service may need more than before."""
_WHOLE_SECONDS = 3_600.0
"""Between two looks through all that is alive, which take 0.3 s. What died in a cycle after it was set aside is kept
until then: of requests that were under way at a collection."""
_YOUNGEST, _NEVER = 10_000, 2**31 - 1
"""New objects after which the youngest are looked through: some searches'. By Python's own 700 it is done once in each
search, while nearly all are in use."""


class GarbageCollection:
    """Of this process, from now on."""

    def __init__(self) -> None:
        gc.freeze()
        gc.set_threshold(_YOUNGEST, gc.get_threshold()[1], _NEVER)
        self._whole_at = monotonic()
        self._done()

    async def collect(self) -> None:
        if sys.getallocatedblocks() >= _GROWTH * self._blocks and monotonic() - self._at <= _LATEST_SECONDS:
            return
        if monotonic() - self._whole_at > _WHOLE_SECONDS:
            gc.unfreeze()
            self._whole_at = monotonic()
        gc.collect()
        gc.freeze()
        self._done()

    def _done(self) -> None:
        self._blocks, self._at = sys.getallocatedblocks(), monotonic()


async def trim() -> None:
    """Give back to the system what was freed: a fifth of an idle API, of requests and passes of models.

    It takes a few milliseconds of processor time, and one where there is little.
    """
    with suppress(AttributeError):  # other C libraries than glibc have no such function
        await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)
