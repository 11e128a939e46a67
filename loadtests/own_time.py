"""What the event loop's thread computes for one search, by stage: `python -m loadtests.own_time`.

Our Python, drivers and framework together.

The application runs in this process under cProfile. A coroutine that waits returns to the loop, so the time under its
name is what it computed, not what it waited for. The profiler itself makes Python slower; the figures are scaled by
the time that the same searches took the thread without it.
"""

import argparse
import asyncio
import cProfile
import pstats
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvloop

from loadtests import prepare
from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox, sandbox
from service.api import middleware
from service.api.bodies import JsonResponse
from service.api.schemas import search_response
from service.api.schemas.search_request import SearchBody
from service.embedder.models.scheduler import PassScheduler
from service.runtime.container.api import open_api
from service.search import candidates, events, pipeline
from service.search.encode_query import QueryEncoder
from service.search.passages import PassageSelector
from service.search.postprocessing import PostProcessor
from service.search.rerank import RerankStage
from service.search.retrievers import DenseRetriever, LexicalRetriever

ROUNDS = 3
"""The fastest counts: what else runs on the machine only adds to it."""
STAGES: dict[str, list[Callable[..., Any]]] = {
    "embed": [QueryEncoder.encode, PassScheduler._serve],
    "dense": [DenseRetriever.search],
    "lexical": [LexicalRetriever.search],
    "look up": [candidates.complete_scores],
    "fuse": [pipeline._fuse],
    "fetch": [pipeline.SearchPipeline._fetch],
    "passages": [PassageSelector.choose],
    "rerank": [RerankStage.rerank],
    "highlight": [PostProcessor.decorate],
    "metrics": [events.record_metrics, middleware._report_request],
    "answer": [search_response.search_answer, JsonResponse.render],
    "request": [SearchBody.request],
}
"""Functions whose time, with all that they call, is the stage's. None of them calls another."""


def measure(place: Sandbox, queries: Sequence[str]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(place, queries))


async def _measure(place: Sandbox, queries: Sequence[str]) -> None:
    async with open_api(prepare.settings_in(place.folder), place.url) as app, app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
            await _ask(client, queries[:30])
            whole = min([await _ask(client, queries) for _ in range(ROUNDS)])
            profile = cProfile.Profile(time.thread_time)
            profile.enable()
            slowed = await _ask(client, queries)
            profile.disable()
    scale = 1e3 * whole / slowed / len(queries)
    statistics = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows: list[list[object]] = []
    for stage, functions in STAGES.items():
        codes = {(one.__code__.co_filename, one.__code__.co_firstlineno) for one in functions}
        seconds = sum(figures[3] for (file, line, _), figures in statistics.items() if (file, line) in codes)
        rows.append([stage, scale * seconds])
    rows.append(["everything, client of the test included", 1e3 * whole / len(queries)])
    heading("Computed by the event loop's thread for one hybrid search, ms")
    table(["stage", "ms"], rows)


async def _ask(client: httpx.AsyncClient, queries: Sequence[str]) -> float:
    """Seconds that this thread computed for it."""
    started = time.thread_time()
    path = f"/v1/collections/{prepare.COLLECTION}/search"
    for query in queries:
        response = await client.post(path, json={"query": query})
        response.raise_for_status()
    return time.thread_time() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=5_000)
    arguments.add_argument("--folder", type=Path, help="kept, and found again the next time")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        measure(place, prepare.queries(place, chosen.documents))


if __name__ == "__main__":
    main()
