"""When garbage is collected: not while a large request is under way.

Python stops all threads while it looks through what is alive, by itself whenever enough has been made: beside an answer
of 64 times 1,000 hits the event loop then stood still for half a second, many times. Only the youngest objects are
looked through like that here. What is older is looked through while hardly more is alive than the last time.
"""

import gc
import sys
from time import monotonic

PAUSE_SECONDS = 5.0
"""Between two calls of `collect`."""
_GROWTH = 1.2
_LATEST_SECONDS = 300.0
"""After so long it is collected however much is alive: the service may need more than before."""
_NEVER = 2**31 - 1


class GarbageCollection:
    """Of this process, from now on; what is alive already is never looked through."""

    def __init__(self) -> None:
        gc.freeze()
        youngest, younger, _ = gc.get_threshold()
        gc.set_threshold(youngest, younger, _NEVER)
        self._done()

    async def collect(self) -> None:
        if sys.getallocatedblocks() < _GROWTH * self._blocks or monotonic() - self._at > _LATEST_SECONDS:
            gc.collect()
            self._done()

    def _done(self) -> None:
        self._blocks, self._at = sys.getallocatedblocks(), monotonic()
