"""Bodies that take long: away from the event loop, with few of their errors named."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from service.api import bodies
from service.core.errors import MAX_PLACES
from tests.edge import Edge, Json, edge

pytestmark = pytest.mark.asyncio(loop_scope="module")
SEARCH = "/v1/collections/papers/search"
UNKNOWN = dict.fromkeys(map("key {}".format, range(3_000)), 1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[Edge]:
    async with edge() as running:
        await running.collection()
        yield running


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        (SEARCH, {"query": "a", **UNKNOWN}, 3_000),
        (f"{SEARCH}/batch", {"searches": [{"query": "a"}, *[{"query": "a", **UNKNOWN}] * 2]}, 6_000),
        ("/v1/collections/papers/documents", {"documents": [{"id": "a", "text": "a", **UNKNOWN}]}, 3_000),
        ("/v1/collections/papers/documents/delete", {"ids": [1] * 1_000}, 1_000),
        ("/v1/collections/papers/judgments", {"queries": [{"_id": "a", "text": "b"}], "qrels": [{}] * 2_000}, 6_000),
        ("/v1/collections/papers/judgments", {"queries": [{"_id": "a", "text": ""}] * 1_500, "qrels": [1]}, 1_501),
    ],
)
async def test_of_many_errors_twenty_are_named_and_all_are_counted(
    api: Edge, path: str, body: Json, count: int
) -> None:
    problem = await api.refused(path, body, 422)
    assert len(problem["errors"]) == MAX_PLACES
    assert f"{count} of the values" in problem["detail"]
    assert f"{count - MAX_PLACES} more" in problem["detail"]


async def test_every_error_in_a_later_group_is_placed_where_it_is(api: Edge) -> None:
    rows = [{"query-id": "a", "corpus-id": "d", "score": 1}] * 1_200
    rows[1_100] = {"query-id": "a", "corpus-id": "d", "score": -1}
    body = {"queries": [{"_id": "a", "text": "b"}], "qrels": rows}
    problem = await api.refused("/v1/collections/papers/judgments", body, 422, "qrels.1100.score")
    assert len(problem["errors"]) == 1


async def test_every_list_in_a_body_has_a_bound(api: Edge) -> None:
    schemas = (await api.get("/openapi.json"))["components"]["schemas"]

    def unbounded(value: Any, place: str) -> list[str]:
        if isinstance(value, list):
            return [one for at, inner in enumerate(value) for one in unbounded(inner, f"{place}.{at}")]
        if not isinstance(value, dict):
            return []
        own = [place] if value.get("type") == "array" and "maxItems" not in value else []
        return own + [one for name, inner in value.items() for one in unbounded(inner, f"{place}.{name}")]

    found = [place for name in schemas if name.endswith("Body") for place in unbounded(schemas[name], name)]
    assert found == []


async def test_a_large_body_is_read_in_a_thread(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    parse = bodies.parse_json

    def watched(data: bytes) -> Any:
        threads.append(threading.current_thread())
        return parse(data)

    monkeypatch.setattr(bodies, "parse_json", watched)
    await api.post(SEARCH, {"query": "a"})
    await api.post(SEARCH, {"query": "a", "vector": None, "filter": {"field": {"$in": ["x" * 50] * 300}}})
    assert [one is threading.main_thread() for one in threads] == [True, False]


async def test_one_metadata_too_large_is_refused_before_it_is_walked_through(api: Edge) -> None:
    body = {"documents": [{"id": "a", "text": "a", "metadata": {"$": [float(1)] * 40_000}}]}
    problem = await api.refused("/v1/collections/papers/documents", body, 422, "documents.0.metadata")
    assert problem["errors"][0]["message"] == "larger than 65536 bytes"


async def test_a_large_answer_is_sent_in_parts_that_add_up() -> None:
    content = {"hits": [{"text": "é" * 1_000}] * 3_000, "took_ms": 1.5}
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    answer = await bodies.large_answer(content, {"x-one": "1"})
    await answer({"type": "http"}, receive, send)
    head, *parts = sent
    body = b"".join(part.get("body", b"") for part in parts)
    assert body == orjson.dumps(content)
    assert (b"content-length", str(len(body)).encode()) in head["headers"]
    assert (b"x-one", b"1") in head["headers"]
    assert max(len(part.get("body", b"")) for part in parts) < len(body) / 4
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
