"""What to do about the health of an HNSW index. Pure: thresholds and sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from service.core.index_health import IndexHealth
from service.core.verdict import Verdict

DEAD_SHARE_WATCH, DEAD_SHARE_BROKEN = 0.10, 0.30
"""Share of dead rows. Tables of vectors are vacuumed at 5 %, so twice that shows that vacuum does not keep up; at 30 %
a scan loses as much as a step and a half of `ef_search` gives."""
OLD_TRANSACTION_SECONDS = 600
"""From this age on, a transaction is named as what delays vacuum."""


@dataclass(frozen=True, slots=True)
class IndexAdvice:
    """`finding`: what was found. `action`: what to do about it, empty where there is nothing to do."""

    verdict: Verdict
    finding: str
    action: str = ""


_healthy = partial(IndexAdvice, "healthy")
_watch = partial(IndexAdvice, "watch")
_broken = partial(IndexAdvice, "broken")


def advise(health: IndexHealth, *, exact_below: int, target_missed: bool) -> tuple[IndexAdvice, ...]:
    """All findings, worst first; a single healthy one where there is no trouble. `target_missed`: the recall target."""
    found = [*_index(health, exact_below), *_rows(health), *_memory(health)]
    if target_missed:
        found.append(
            _broken(
                "not even the largest ef_search holds the recall target",
                "rebuild the index (POST .../reindex); if that does not help, register a version with a larger "
                "index.m and index.ef_construction or with index.kind ivfflat, or lower recall_target",
            )
        )
    return tuple(sorted(found, key=lambda one: one.verdict != "broken")) or (_sound(health),)


def _sound(health: IndexHealth) -> IndexAdvice:
    if health.index is None:
        return _healthy(f"{health.rows} vectors are scanned exactly: nothing is lost")
    return _healthy(f"the index is valid and complete; {health.dead_share:.0%} of the rows are dead")


def _index(health: IndexHealth, exact_below: int) -> Iterator[IndexAdvice]:
    index = health.index
    if index is None:
        if health.rows > exact_below and not health.indexable:
            yield _watch(
                f"vectors of this length have no index: all {health.rows} are scanned for each search",
                "register a version with fewer dimensions or with the storage halfvec",
            )
        elif health.rows > exact_below:
            yield _watch(
                f"{health.rows} vectors have no index yet and are scanned exactly, which is slow",
                "nothing: it is built when the queue is nearly empty",
            )
    elif index.building:
        yield _watch(
            "the index is being rebuilt; searches use the present one" if index.valid else "the index is being built",
            "nothing: versions/{number} tells how far it is",
        )
    elif not index.valid:
        yield _broken(
            "the index is invalid: a build was interrupted, and every search scans all vectors",
            "nothing where a process of the service runs: it rebuilds the index by itself; otherwise look at its log",
        )


def _rows(health: IndexHealth) -> Iterator[IndexAdvice]:
    share = health.dead_share
    if share >= DEAD_SHARE_WATCH and health.index is not None:
        action = "wait for autovacuum, or VACUUM the table; where a third of the rows was replaced, rebuild the index "
        action += "afterwards (POST .../reindex)"
        if health.oldest_seconds > OLD_TRANSACTION_SECONDS:
            action = f"end the transaction that has been open for {health.oldest_seconds:.0f} s: vacuum waits for it"
        effect = f"take places in every scan: it finds about as much as one with {1 - share:.0%} of its ef_search"
        if health.kind in ("ivfflat", "vchordrq"):
            effect = "are read by every scan that comes by them, and not found"
        yield (_broken if share >= DEAD_SHARE_BROKEN else _watch)(
            f"{health.dead_rows} dead rows ({share:.0%}) {effect}", action
        )
    if health.unindexed_rows:
        yield _broken(
            f"{health.unindexed_rows} vectors are NULL or zero and cannot be found along the index",
            "somebody removed the constraints of the table: write these documents again",
        )


def _memory(health: IndexHealth) -> Iterator[IndexAdvice]:
    index = health.index
    if index is not None and index.bytes > health.cache_bytes:
        yield _watch(
            f"the index ({_size(index.bytes)}) is larger than what the server has for caching "
            f"({_size(health.cache_bytes)}): a scan reads from disk at random",
            "give the server more memory (and effective_cache_size), or register a version with the storage scalar or "
            "binary, or with fewer dimensions",
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
