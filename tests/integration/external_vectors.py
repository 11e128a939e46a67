"""A service in this process, and a collection of the client's own vectors in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from service.runtime.container import api
from service.runtime.settings import Settings

PATH = "/v1/collections/space"


@asynccontextmanager
async def client_of(url: str, folder: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        api.open_api(Settings(data_dir=folder, embedder="hashing:16", reranker="none", **settings), url) as app,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60) as client,
    ):
        yield client


async def fill(client: httpx.AsyncClient, rows: npt.NDArray[np.float32], **settings: Any) -> None:
    """The collection with one document for each row. Its id is its place, and `half` says whether that is odd."""
    embedder = {"model": "external", "dimensions": rows.shape[1], "identity": "theirs"}
    (await client.put(PATH, json={"embedder": embedder, **settings})).raise_for_status()
    documents = [
        {"id": f"{at}", "text": f"number {at}", "vector": row.tolist(), "metadata": {"half": at % 2}}
        for at, row in enumerate(rows)
    ]
    for at in range(0, len(documents), 1_000):
        (await client.post(f"{PATH}/documents", json={"documents": documents[at : at + 1_000]})).raise_for_status()
