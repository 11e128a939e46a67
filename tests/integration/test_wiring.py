"""What the running objects say of themselves: readiness, and gauges of collections that come and go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.runtime.container.api import open_api
from service.runtime.settings import Settings
from service.store.embedded.server import EmbeddedServer
from service.store.lexical.follower import Follower
from tests.conftest import create_database, url_of

pytestmark = pytest.mark.database


@asynccontextmanager
async def api(url: str, folder: Path) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    settings = Settings(data_dir=folder, embedder="hashing:16", reranker="none")
    async with open_api(settings, url) as app:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as http,
        ):
            yield app, http


async def until_ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


@pytest.fixture
def url(server: EmbeddedServer, template: str, request: pytest.FixtureRequest) -> str:
    name = f"wiring_{abs(hash(request.node.name)) % 10**8}"
    create_database(server, name, template)
    return url_of(server, name)


async def test_a_new_collection_does_not_make_the_api_unready(url: str, tmp_path: Path) -> None:
    async with api(url, tmp_path) as (_, http):
        await until_ready(http)
        for number in range(5):
            assert (await http.put(f"/v1/collections/c{number}")).status_code == 201
            assert (await http.get("/readyz")).status_code == 200


async def test_an_api_is_not_ready_before_its_lexical_indexes_are_built(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(url, tmp_path / "first") as (_, http):
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
    async with api(url, tmp_path / "second") as (_, http):
        async with asyncio.timeout(30):
            while "models" in (answer := await http.get("/readyz")).text:
                await asyncio.sleep(0.02)
        assert answer.status_code == 503
        assert "lexical index of c: being built" in answer.json()["detail"]
        may_build.set()
        await until_ready(http)


async def test_gauges_of_a_deleted_collection_are_removed(url: str, tmp_path: Path) -> None:
    async with api(url, tmp_path) as (_, http):
        await until_ready(http)
        await http.put("/v1/collections/passing-by")
        await http.post("/v1/collections/passing-by/documents", json={"documents": [{"id": "a", "text": "one"}]})
        assert 'azimuth_queue_pending{collection="passing-by"} 1.0' in (await http.get("/metrics")).text
        await http.delete("/v1/collections/passing-by")
        left = [
            line
            for line in (await http.get("/metrics")).text.splitlines()
            if '"passing-by"' in line and line.startswith(("azimuth_queue", "azimuth_version", "azimuth_canary"))
        ]
        assert left == []
