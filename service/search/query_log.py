"""The one place where live queries are remembered: by key, bounded, in the memory of this process.

A key is a collection, a version of it, or a kind of search. Each key has a memory of its own, and the memory decides
which queries it keeps, because their users need different ones:

recall   a uniform sample of what came since the last probe, for an unbiased mean (`recall/probe_queue.py`)
drift    the latest queries beside a sample of earlier ones, to compare the two (`drift/query_window.py`)
shadow   distinct recent requests, because to answer one twice teaches nothing (`versions/shadow_traffic.py`)
"""

import math
from collections.abc import Callable
from typing import TypeVar

from service.core.filters import operands
from service.core.lru import LruDict
from service.core.search import SearchRequest

_OPERAND_BYTES, _CHARACTER_BYTES, _NUMBER_BYTES = 128, 4, 32
K = TypeVar("K")
M = TypeVar("M")


class QueryLog(LruDict[K, M]):
    """Memories of type `M` by key. The keys asked longest ago are dropped; deleted ones are removed with `pop`.

    `size_of`: bytes of a memory, where their sum is bounded by `max_bytes`.
    """

    def __init__(
        self,
        new_memory: Callable[[], M],
        *,
        max_keys: int,
        max_bytes: float = math.inf,
        size_of: Callable[[M], int] = lambda _: 0,
    ) -> None:
        super().__init__(max_keys)
        self._new_memory = new_memory
        self._max_bytes = max_bytes
        self._size_of = size_of

    def touch(self, key: K) -> M:
        """The memory of this key, new where there is none. The key becomes the most recently used one."""
        known = self.get(key)
        self[key] = memory = self._new_memory() if known is None else known
        return memory

    @property
    def bytes(self) -> int:
        return sum(map(self._size_of, self.values()))

    def trim(self) -> None:
        """Drop keys until the memories fit in `max_bytes`: to be called after queries were added."""
        while self.bytes > self._max_bytes:
            self.popitem(last=False)


def text_bytes(text: str) -> int:
    """Memory of a text, approximately."""
    return _CHARACTER_BYTES * len(text)


def request_bytes(request: SearchRequest) -> int:
    """Memory of a request, approximately."""
    parts = request.effective_queries if request.like is None else [example for _, example in request.like.by_field]
    size = sum(text_bytes(one.text or "") + _NUMBER_BYTES * len(one.vector or ()) for one in parts)
    return size + _OPERAND_BYTES * operands(request.where)
