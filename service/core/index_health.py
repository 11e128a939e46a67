"""How the index of a version stands. Pure: no I/O.

A row that was deleted or updated stays in an HNSW graph until a vacuum removes it. A scan visits it, and it takes one
of the `ef_search` places, but it is never returned: with a share s of dead rows a scan finds about as much as one with
(1 - s) times the `ef_search` in a clean index. The recall controller compensates with a larger `ef_search`. In lists
dead rows cost time alone.
"""

from dataclasses import dataclass

from service.core.collections import IndexKind


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexState:
    """`valid`: searches use it. `building`: a first build or a rebuild is running. `build` identifies the build."""

    name: str
    valid: bool
    bytes: int
    building: bool
    build: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexHealth:
    """`dead_rows` and `written` are as PostgreSQL's statistics count them, the latter since these were last reset.

    `unindexed_rows`: NULL or zero vectors, which no index can hold. `cache_bytes`: what the server expects to have for
    caching, in its own buffers and the system's. `oldest_seconds`: age of the oldest transaction, which delays vacuum.
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
    kind: IndexKind = "hnsw"

    @property
    def dead_share(self) -> float:
        whole = self.rows + self.dead_rows
        return self.dead_rows / whole if whole else 0.0
