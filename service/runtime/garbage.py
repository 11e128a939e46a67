"""When garbage is collected: not while a large request is under way.

Python stops all threads while it looks through what is alive, by itself whenever enough has been made: beside an answer
of 64 times 1,000 hits the event loop then stood still for half a second, many times. Only the youngest objects are
looked through like that here. What is older is looked through while hardly more is alive than the last time, and then
set aside (`gc.freeze`): libraries that load when they are first needed are a quarter of a million objects, which take
0.14 s each time. All is looked through every few minutes.
"""

import gc
import sys
from time import monotonic

PAUSE_SECONDS = 5.0
"""Between two calls of `collect`."""
_GROWTH = 1.2
_WHOLE_SECONDS = 300.0
"""Between two looks through all that is alive."""
_LATEST_SECONDS = 2 * _WHOLE_SECONDS
"""After so long it is looked through however much is alive: the service may need more than before."""
_YOUNGEST, _NEVER = 10_000, 2**31 - 1
"""New objects after which the youngest are looked through: some searches'. By Python's own 700 it is done twice in each
search, while nearly all are in use."""


class GarbageCollection:
    """Of this process, from now on."""

    def __init__(self) -> None:
        gc.freeze()
        gc.set_threshold(_YOUNGEST, gc.get_threshold()[1], _NEVER)
        self._blocks, self._whole_at = sys.getallocatedblocks(), monotonic()

    async def collect(self) -> None:
        since = monotonic() - self._whole_at
        if sys.getallocatedblocks() >= _GROWTH * self._blocks and since <= _LATEST_SECONDS:
            return
        if since > _WHOLE_SECONDS:
            gc.unfreeze()
            self._whole_at = monotonic()
        gc.collect()
        gc.freeze()
        self._blocks = sys.getallocatedblocks()
