"""The index of a version over HTTP: how it stands, and building it anew."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest

from service.core.index_health import IndexHealth
from service.core.versions import SpaceStatus
from tests.edge import Edge, Json, assert_problem, edge
from tests.fakes import FakeIndexes

PLACE = "/v1/collections/papers/versions/1"


@dataclasses.dataclass
class Indexed:
    edge: Edge
    indexes: FakeIndexes

    def rows(self, rows: int, *, indexed: bool = True) -> None:
        (collection,) = self.edge.store.collections.rows.values()
        key = (collection.id, collection.active_version)
        self.edge.store.versions.statuses[key] = SpaceStatus(rows=rows, indexed=indexed, chunks_per_document=1.0)

    async def index_state(self) -> Json:
        return await self.edge.get(f"{PLACE}/index")


@pytest.fixture
async def indexed() -> AsyncIterator[Indexed]:
    async with edge() as here:
        await here.collection()
        indexes = here.service.recall_controller.indexes
        assert isinstance(indexes, FakeIndexes)
        yield Indexed(here, indexes)
        await here.service.recall_controller.cancel_rebuilds()


async def test_a_small_space_needs_no_index(indexed: Indexed) -> None:
    indexed.rows(500, indexed=False)
    index_state = await indexed.index_state()
    assert (index_state["version"], index_state["rows"], index_state["index"]) == (1, 500, None)
    (only,) = index_state["advice"]
    assert only["verdict"] == "healthy"
    assert "exactly" in only["says"]
    assert_problem(await indexed.edge.client.post(f"{PLACE}/reindex"), 409)


async def test_the_state_of_an_index(indexed: Indexed) -> None:
    indexed.rows(50_000)
    index_state = await indexed.index_state()
    name = index_state["index"]["name"]
    assert index_state["index"] == {"name": name, "valid": True, "bytes": 8_192, "building": False}
    assert [one["verdict"] for one in index_state["advice"]] == ["healthy"]
    (collection,) = indexed.edge.store.collections.rows.values()
    indexed.indexes.healths[collection.id, collection.active_version] = IndexHealth(
        rows=50_000,
        dead_rows=30_000,
        unindexed_rows=0,
        written=0,
        index=None,
        indexable=True,
        table_bytes=1,
        cache_bytes=4_096,
    )
    index_state = await indexed.index_state()
    assert index_state["dead_rows"] == 30_000
    assert [one["verdict"] for one in index_state["advice"]] == ["broken", "watch"]
    assert all(one["says"] and one["do"] for one in index_state["advice"])


async def test_one_rebuild_at_a_time_and_it_is_on_the_audit_trail(indexed: Indexed) -> None:
    indexed.rows(50_000)
    indexed.indexes.go.clear()
    answer = await indexed.edge.client.post(f"{PLACE}/reindex")
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{PLACE}/index"
    assert_problem(await indexed.edge.client.post(f"{PLACE}/reindex"), 409)
    assert (await indexed.index_state())["index"]["building"] is True
    indexed.indexes.go.set()
    deadline = time.monotonic() + 5
    while (await indexed.index_state())["index"]["building"] and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert (await indexed.edge.client.post(f"{PLACE}/reindex")).status_code == 202
    noted = [(entry["action"], entry["version"], entry["actor"]) for entry in await indexed.edge.trail()]
    assert noted[:2] == [("reindexed", 1, "client 127.0.0.1")] * 2
    assert noted[2][0] == "created"


async def test_a_rebuild_in_another_process_is_a_409(indexed: Indexed) -> None:
    indexed.rows(50_000)
    (version,) = await indexed.edge.service.versions.written()
    async with indexed.indexes.rebuild_lock(version) as theirs:
        assert theirs
        assert_problem(await indexed.edge.client.post(f"{PLACE}/reindex"), 409)
    assert [entry["action"] for entry in await indexed.edge.trail()] == ["created"]
