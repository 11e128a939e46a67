"""What to do about the state of an HNSW index. Pure: thresholds and sentences."""

from dataclasses import dataclass

from service.core.index_health import IndexHealth
from service.core.verdict import Verdict

DEAD_WATCH, DEAD_BROKEN = 0.10, 0.30
"""Share of dead rows. Tables of vectors are vacuumed at 5 %, so twice that says that vacuum does not keep up; at 30 % a
scan loses as much as a rung and a half of the ladder gives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexAdvice:
    """`do` is empty where there is nothing to do."""

    verdict: Verdict
    says: str
    do: str = ""


def advice(health: IndexHealth, *, exact_below: int, missed: bool) -> tuple[IndexAdvice, ...]:
    """What to know of it, worst first; one word of all being well where it is. `missed`: the recall target is."""
    found = [*_index(health, exact_below), *_rows(health), *_memory(health)]
    if missed:
        found.append(
            IndexAdvice(
                verdict="broken",
                says="not even the largest ef_search holds the recall target",
                do="rebuild the index (POST .../reindex); if that does not mend it, register a version with a larger "
                "index.m and index.ef_construction, or lower recall_target",
            )
        )
    order: dict[Verdict, int] = {"broken": 0, "watch": 1, "healthy": 2}
    return tuple(sorted(found, key=lambda one: order[one.verdict])) or (_well(health),)


def _well(health: IndexHealth) -> IndexAdvice:
    if health.index is None:
        return IndexAdvice(verdict="healthy", says=f"{health.rows} vectors are scanned exactly: nothing is lost")
    return IndexAdvice(
        verdict="healthy", says=f"the index is valid and whole; {health.dead_share:.0%} of the rows are dead"
    )


def _index(health: IndexHealth, exact_below: int) -> list[IndexAdvice]:
    index = health.index
    if index is None:
        if health.rows <= exact_below:
            return []
        if not health.indexable:
            return [
                IndexAdvice(
                    verdict="watch",
                    says=f"vectors of this length have no index: all {health.rows} are scanned for each search",
                    do="register a version with fewer dimensions or with the storage halfvec",
                )
            ]
        return [
            IndexAdvice(
                verdict="watch",
                says=f"{health.rows} vectors have no index yet and are scanned exactly, which is slow",
                do="nothing: it is built when the queue is nearly empty",
            )
        ]
    if index.building:
        says = "the index is being built anew; searches use the present one" if index.valid else "it is being built"
        return [IndexAdvice(verdict="watch", says=says, do="nothing: versions/{number} tells how far it is")]
    if not index.valid:
        return [
            IndexAdvice(
                verdict="broken",
                says="the index is invalid: a build was broken off, and every search scans all vectors",
                do="nothing where a process of the service runs: it is built anew by itself; else look at its log",
            )
        ]
    return []


def _rows(health: IndexHealth) -> list[IndexAdvice]:
    found = []
    share = health.dead_share
    if share >= DEAD_WATCH and health.index is not None:
        held = health.oldest_seconds > 600
        found.append(
            IndexAdvice(
                verdict="broken" if share >= DEAD_BROKEN else "watch",
                says=f"{health.dead_rows} dead rows ({share:.0%}) take places in every scan: it finds about as much as "
                f"one with {1 - share:.0%} of its ef_search",
                do=(
                    f"end the transaction that has been open for {health.oldest_seconds:.0f} s: vacuum waits for it"
                    if held
                    else "wait for autovacuum, or VACUUM the table; where a third of the rows was replaced, rebuild "
                    "the index afterwards (POST .../reindex)"
                ),
            )
        )
    if health.unindexed_rows:
        found.append(
            IndexAdvice(
                verdict="broken",
                says=f"{health.unindexed_rows} vectors are NULL or zero and cannot be found along the index",
                do="somebody removed the constraints of the table: write these documents anew",
            )
        )
    return found


def _memory(health: IndexHealth) -> list[IndexAdvice]:
    index = health.index
    if index is None or index.bytes <= health.cache_bytes:
        return []
    return [
        IndexAdvice(
            verdict="watch",
            says=f"the index ({_size(index.bytes)}) is larger than what the server has for caching "
            f"({_size(health.cache_bytes)}): a scan reads from disk at random",
            do="give the server more memory (and effective_cache_size), or register a version with the storage binary "
            "or fewer dimensions",
        )
    ]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
