"""How the index of a version stands, and what to do about it. Pure: nouns, thresholds and words; no I/O.

A row that was deleted or written anew stays in an HNSW graph until a vacuum takes it out. A scan walks over it, and it
takes one of the `ef_search` places, but it is not given to anybody: with a share s of dead rows a scan finds about as
much as one with (1 - s) times the `ef_search` in a clean index. The controller makes up for that by looking farther
(`effort.py`), which costs time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexState:
    """`valid`: searches use it. `building`: it is being built, or built anew, right now.

    `build` tells one build from the next.
    """

    name: str
    valid: bool
    bytes: int
    building: bool
    build: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexHealth:
    """`dead_rows`, `written`: as PostgreSQL's statistics count them; the latter ever since they were reset.

    `unindexed_rows`: what no index can hold, for it is NULL or zero; `cache_bytes`: what the server believes to have
    for caching, its own buffers and those of the system. `oldest_seconds`: age of the oldest transaction, which holds
    back vacuum.
    """

    rows: int
    dead_rows: int
    unindexed_rows: int
    written: int
    index: IndexState | None
    indexable: bool
    table_bytes: int
    cache_bytes: int
    oldest_seconds: float = 0.0

    @property
    def dead_share(self) -> float:
        whole = self.rows + self.dead_rows
        return self.dead_rows / whole if whole else 0.0
