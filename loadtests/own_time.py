"""What the event loop's thread computes for one search, by stage: our Python, drivers and framework together.

The application runs in this process under cProfile. A coroutine that waits returns to the loop, so the time under its
name is what it computed, not what it waited for. The profiler itself makes Python slower; the figures are scaled by
the time that the same searches took the thread without it.
"""

import asyncio
import cProfile
import pstats
import time
from collections.abc import Sequence

import httpx
import uvloop

from loadtests import prepare
from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox
from service.runtime.container.api import open_api

STAGES = {
    "embed": [("asking.py", "vectors"), ("batcher.py", "_run")],
    "dense": [("legs.py", "dense")],
    "lexical": [("legs.py", "lexical")],
    "look up": [("finds.py", "look_up")],
    "fuse": [("search.py", "_fuse")],
    "fetch": [("search.py", "_fetch")],
    "hits": [("reranking.py", "order")],
    "highlight": [("search.py", "_dress")],
    "metrics": [("search.py", "_observe"), ("middleware.py", "_report")],
    "answer": [("hits.py", "search"), ("answers.py", "render")],
    "request": [("questions.py", "request")],
}
"""Functions whose time, with all that they call, is the stage's. None of them calls another."""


def measure(place: Sandbox, queries: Sequence[str]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(place, queries))


async def _measure(place: Sandbox, queries: Sequence[str]) -> None:
    async with open_api(prepare.settings_in(place.folder), place.url) as app, app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
            await _ask(client, queries[:30])
            started = time.thread_time()
            await _ask(client, queries)
            whole = time.thread_time() - started
            profile = cProfile.Profile(time.thread_time)
            profile.enable()
            started = time.thread_time()
            await _ask(client, queries)
            slowed = time.thread_time() - started
            profile.disable()
    scale = 1e3 * whole / slowed / len(queries)
    statistics = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows: list[list[object]] = []
    for stage, functions in STAGES.items():
        seconds = sum(
            figures[3]
            for (file, _, name), figures in statistics.items()
            if any(file.endswith(f"/{end}") and "service" in file and name == wanted for end, wanted in functions)
        )
        rows.append([stage, scale * seconds])
    rows.append(["everything, client of the test included", 1e3 * whole / len(queries)])
    heading("Computed by the event loop's thread for one hybrid search, ms")
    table(["stage", "ms"], rows)


async def _ask(client: httpx.AsyncClient, queries: Sequence[str]) -> None:
    path = f"/v1/collections/{prepare.COLLECTION}/search"
    for query in queries:
        response = await client.post(path, json={"query": query})
        response.raise_for_status()
