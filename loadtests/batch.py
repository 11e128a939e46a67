"""What does a batch of searches cost beside as many single ones? `python -m loadtests.batch`.

The same queries over loopback, as one `search/batch` and one by one, in turns; each round with queries that the others
do not ask. A batch is encoded in one call, and its searches share the wait for the database.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests import prepare
from loadtests.figures import heading, median, table
from loadtests.sandbox import sandbox
from service.api.schemas.search_request import MAX_SEARCHES
from service.client.http_client import Client

MODES = ("hybrid", "dense", "lexical")


def measure(address: str, queries: Sequence[str], size: int) -> None:
    rounds = [list(queries[at : at + size]) for at in range(0, len(queries) - size + 1, size)]
    rows: list[list[object]] = []
    with Client(address) as client:
        prepare.caught_up(client)
        for mode in MODES:
            seconds: dict[str, list[float]] = {"search": [], "search/batch": []}
            for number, texts in enumerate(rounds):
                searches = [{"query": text, "mode": mode} for text in texts]
                asked: dict[str, list[dict[str, Any]]] = {"search": searches, "search/batch": [{"searches": searches}]}
                for path in sorted(asked, reverse=bool(number % 2)):  # what comes second finds caches that are warm
                    seconds[path].append(_seconds(client, path, asked[path]))
            single, batched = (median(seconds[path]) for path in ("search", "search/batch"))
            rows.append([mode, size, single, batched, batched / single])
    heading(f"{len(rounds)} rounds of {size} searches, medians")
    table(["mode", "searches", "one by one (ms)", "as one batch (ms)", "ratio"], rows)


def _seconds(client: Client, path: str, bodies: Sequence[dict[str, Any]]) -> float:
    started = time.perf_counter()
    for body in bodies:
        client.call("POST", f"/v1/collections/{prepare.COLLECTION}/{path}", json=body)
    return time.perf_counter() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=5_000)
    arguments.add_argument("--size", type=int, default=MAX_SEARCHES, help="searches of one batch")
    arguments.add_argument("--folder", type=Path, help="kept, and found again the next time")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        queries = prepare.queries(place, chosen.documents)
        with place.api() as address:
            measure(address, queries, chosen.size)


if __name__ == "__main__":
    main()
