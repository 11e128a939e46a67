"""What the running objects say of themselves: readiness, and gauges of collections that come and go."""

import asyncio
from pathlib import Path

import httpx
import pytest

from service.store.lexical.follower import Follower
from tests.integration.external_vectors import client_of

pytestmark = pytest.mark.database


async def until_ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


async def test_a_new_collection_does_not_make_the_api_unready(database_url: str, tmp_path: Path) -> None:
    async with client_of(database_url, tmp_path) as http:
        await until_ready(http)
        for number in range(5):
            assert (await http.put(f"/v1/collections/c{number}")).status_code == 201
            assert (await http.get("/readyz")).status_code == 200


async def test_an_api_is_not_ready_before_its_lexical_indexes_are_built(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(database_url, tmp_path / "first") as http:
        await until_ready(http)
        await http.put("/v1/collections/c")
        document = {"documents": [{"id": "a", "text": "one"}]}
        assert (await http.post("/v1/collections/c/documents", json=document)).status_code == 200
    may_build = asyncio.Event()
    follow = Follower.run

    async def later(self: Follower, stop: asyncio.Event) -> None:
        await may_build.wait()
        await follow(self, stop)

    monkeypatch.setattr(Follower, "run", later)
    async with client_of(database_url, tmp_path / "second") as http:
        async with asyncio.timeout(30):
            while "models" in (answer := await http.get("/readyz")).text:
                await asyncio.sleep(0.02)
        assert answer.status_code == 503
        assert "lexical index of c: being built" in answer.json()["detail"]
        may_build.set()
        await until_ready(http)


async def test_gauges_of_a_deleted_collection_are_removed(database_url: str, tmp_path: Path) -> None:
    async with client_of(database_url, tmp_path) as http:
        await until_ready(http)
        await http.put("/v1/collections/passing-by")
        await http.post("/v1/collections/passing-by/documents", json={"documents": [{"id": "a", "text": "one"}]})
        assert 'azimuth_queue_pending{collection="passing-by"} 1.0' in (await http.get("/metrics")).text
        await http.delete("/v1/collections/passing-by?confirm=passing-by")
        left = [
            line
            for line in (await http.get("/metrics")).text.splitlines()
            if '"passing-by"' in line and line.startswith(("azimuth_queue", "azimuth_version", "azimuth_canary"))
        ]
        assert left == []
