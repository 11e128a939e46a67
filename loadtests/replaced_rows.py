"""Recall and latency after a share of the rows was replaced: `python -m loadtests.replaced_rows --folder FOLDER`.

In the folder of a run of `index_kinds`, whose indexes it drops except the first. Rows are deleted and written as the
store does; then the table is vacuumed, which the server does by itself once it comes to it.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from loadtests import corpus
from loadtests.figures import heading, table
from loadtests.index_kinds import BATCH, KINDS, LIMIT, TABLE, Bench, K, copy, figures, opened, sweep, truth
from loadtests.prepare import SEED


def replace(bench: Bench, share: float) -> None:
    count, kind = int(share * len(bench.stored)), KINDS[0]
    gone = np.random.default_rng(SEED).permutation(len(bench.stored))[:count]
    fresh = corpus.variations(bench.anchors, count, np.random.default_rng(SEED + 1))[1]
    rows: list[Sequence[object]] = []

    def measure(when: str, seconds: float) -> None:
        true = truth(bench.stored, bench.asked)
        rows.append([when, seconds, effort, *figures(bench.measure(kind, effort, true))])
        print(rows[-1], flush=True)

    def write(start: int) -> None:
        batch = slice(start, start + BATCH)
        with bench.connection() as connection, connection.transaction():
            ids = [f"doc-{at:07d}" for at in gone[batch]]
            connection.execute(f"DELETE FROM {TABLE} WHERE collection_id = 1 AND document_id = ANY (%s)", (ids,))
            copy(connection, zip(gone[batch].tolist(), fresh[batch], strict=True))

    with bench.connection() as connection:
        for name in set(bench.built) - set(kind.indexes()) - {"COPY"}:
            connection.execute(f"DROP INDEX IF EXISTS {name}")
        connection.execute(f"ALTER TABLE {TABLE} SET (autovacuum_enabled = false)")
        effort = sweep(bench, kind, truth(bench.stored, bench.asked))
        measure("before", 0)
        started = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(write, range(0, count, BATCH)))
        written = time.perf_counter() - started
        bench.stored = np.array(bench.stored)
        bench.stored[gone] = fresh.astype(np.float16)
        measure("replaced", written)
        started = time.perf_counter()
        connection.execute(f"VACUUM {TABLE}")
        measure("vacuumed", time.perf_counter() - started)
    heading(f"{count:,} of {len(bench.stored):,} rows replaced, then vacuumed; ms")
    table(["rows", "seconds", "effort", f"recall@{K}", f"recall@{LIMIT}", "p50", "p95"], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--share", type=float, default=0.3)
    arguments.add_argument("--folder", type=Path, required=True)
    chosen = arguments.parse_args()
    with opened(chosen.folder, 0) as bench:
        replace(bench, chosen.share)


if __name__ == "__main__":
    main()
