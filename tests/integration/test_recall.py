"""The recall that a running service reports, against the truth computed outside of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psycopg
import pytest

from tests.integration.external_vectors import PATH, client_of, fill
from tests.unit_vectors import unit

pytestmark = pytest.mark.database

DOCUMENTS, DIMENSIONS, QUERIES = 2_000, 48, 100
"""As many queries as are remembered: each is probed once."""
Floats = npt.NDArray[np.float32]


STORED, ASKED = (
    unit(np.random.default_rng(seed).normal(size=(count, DIMENSIONS))) for count, seed in ((DOCUMENTS, 1), (QUERIES, 2))
)


@pytest.fixture
async def http(database_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A service whose collection has vectors of the client's own, with an index over them."""
    options = {"exact_below": 500, "passing_cap": 400, "probe_budget_ms": 60_000}
    async with client_of(database_url, tmp_path, **options) as client:
        await fill(client, STORED)
        async with asyncio.timeout(60):
            while (await search(client, ASKED[0]))["plan"]["dense"] != "hnsw":
                await asyncio.sleep(0.1)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        yield client


async def search(client: httpx.AsyncClient, vector: Floats, **request: Any) -> Any:
    body = {"vector": vector.tolist(), "embedder_version": 1, "mode": "dense", "include": [], **request}
    answer = await client.post(f"{PATH}/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def truth(vector: Floats, among: Sequence[int]) -> set[str]:
    """By brute force, over the halves that are stored."""
    rows = STORED[among].astype(np.float16).astype(np.float32)
    cosines = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ vector
    return {f"{among[at]}" for at in np.argsort(-cosines)[:10]}


async def live(client: httpx.AsyncClient, among: Sequence[int], **request: Any) -> tuple[float, Any]:
    """The true recall@10 of what clients get, and the plan."""
    shares = []
    for vector in ASKED:
        answer = await search(client, vector, **request)
        shares.append(len({hit["id"] for hit in answer["hits"]} & truth(vector, among)) / 10)
    return float(np.mean(shares)), answer["plan"]


async def reported(client: httpx.AsyncClient, ef_search: int, plan: str) -> Any:
    """What the service reports of these searches, when it has probed every one of them."""
    async with asyncio.timeout(60):
        while True:
            (version,) = (await client.get(f"{PATH}/recall")).json()["versions"]
            for series in version["series"]:
                if (series["plan"], series["ef_search"]) == (plan, ef_search) and series["queries"] >= QUERIES:
                    return series
            await asyncio.sleep(0.2)


async def test_the_reported_recall_is_that_of_the_answers(http: httpx.AsyncClient) -> None:
    everything, halves = range(DOCUMENTS), range(1, DOCUMENTS, 2)
    true, plan = await live(http, everything, ef_search=10)
    assert plan["dense"] == "hnsw"
    assert 0.2 < true < 0.95, "else there is nothing to be measured"
    series = await reported(http, 10, "hnsw")
    assert series["queries"] == QUERIES, "no search is probed twice within the hour"
    assert series["recall"] == pytest.approx(true, abs=0.005)
    assert series["low"] < true < series["high"]
    assert (series["leg"], series["band"]) == ("dense", "all")

    # With a filter that too many pass to be named.
    true, plan = await live(http, halves, filter={"half": 1}, ef_search=10, candidates=10)
    series = await reported(http, 10, plan["dense"])
    assert series["band"] == "wide"
    assert series["recall"] == pytest.approx(true, abs=0.005)

    # What ran exactly is counted, and metrics say the same.
    true, _ = await live(http, everything, exact=True)
    assert true > 0.995, "halves round"
    series = await reported(http, 0, "exact")
    assert series["queries"] >= QUERIES
    assert series["recall"] == 1.0
    lines = (await http.get("/metrics")).text.splitlines()
    labels = '{band="all",collection="space",plan="exact",version="1"}'
    assert f"azimuth_recall_at_k{labels} 1.0" in lines
    assert any(line.startswith("azimuth_probe_seconds_total") for line in lines)
