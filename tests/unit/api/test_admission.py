"""In an overload some requests are refused at the door: before their body is read, and never those of operators."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock, PropertyMock

import pytest
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from service.api.admission import PACE_SECONDS, AdmissionMiddleware
from service.api.dependencies import RequestLimits
from service.core.admission import Admission, AdmissionLimit
from service.core.search import SearchRequest
from tests.edge import Edge, api_fixture, assert_problem, edge

PAPERS = "/v1/collections/papers"
SEARCH = f"{PAPERS}/search"
DOCUMENT = {"id": "a", "text": "sort a list"}

api = api_fixture(DOCUMENT)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdmissionLimit, "current", PropertyMock(return_value=0))


async def unread() -> AsyncIterator[bytes]:
    yield pytest.fail("the body was read")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", SEARCH),
        ("POST", f"{SEARCH}/batch"),
        ("POST", f"{PAPERS}/similar/a/b"),
        ("POST", f"{PAPERS}/documents"),
        ("POST", f"{PAPERS}/documents/delete"),
        ("DELETE", f"{PAPERS}/documents/a"),
        ("POST", f"{PAPERS}/evaluate"),
        ("POST", "/rerank"),
        ("POST", "/v1/rerank"),
        ("POST", "/v2/rerank"),
        ("POST", "/v1/embeddings"),
        ("POST", "/tokenize"),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_work_is_refused_before_its_body_is_read(
    api: Edge, full: None, method: str, path: str, kind: str
) -> None:
    headers = {"Content-Type": kind, "Origin": "http://t"}
    answer = await api.client.request(method, path, content=unread(), headers=headers)
    assert assert_problem(answer, 429)["type"] == "urn:azimuth:error:overloaded"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/", 200),
        ("GET", "/openapi.json", 200),
        ("GET", PAPERS, 200),
        ("PUT", PAPERS, 200),
        ("GET", f"{PAPERS}/documents", 200),
        ("GET", f"{PAPERS}/documents/a", 200),
        ("GET", f"{PAPERS}/geometry", 200),
        ("GET", f"{PAPERS}/audit", 200),
        ("GET", "/v1/models", 200),
        ("OPTIONS", SEARCH, 204),
        ("POST", "/nowhere", 404),
    ],
)
async def test_operators_and_readers_are_never_refused(
    api: Edge, full: None, method: str, path: str, status: int
) -> None:
    assert (await api.client.request(method, path)).status_code == status


async def test_refusals_are_measured_by_their_route_and_the_limit_is_a_metric(api: Edge, full: None) -> None:
    await api.client.post(SEARCH, json={"query": "x"})
    text = (await api.client.get("/metrics")).text
    route = 'route="/v1/collections/{collection}/search"'
    assert f'azimuth_http_request_seconds_count{{method="POST",{route},status="429"}}' in text
    assert f"azimuth_admission_limit{{{route}}} 0.0" in text


class Held:
    """Searches that do not end until `go`."""

    def __init__(self, api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go = 0, asyncio.Event()
        run = api.service.search.run

        async def held(name: Any, request: SearchRequest, *shared: Any) -> Any:
            self.began += 1
            await self.go.wait()
            return await run(name, request, *shared)

        monkeypatch.setattr(api.service.search, "run", held)

    async def until(self, began: int) -> None:
        async with asyncio.timeout(10):
            while self.began < began:
                await asyncio.sleep(0)


async def test_each_route_has_a_limit_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(limits=RequestLimits(concurrent=2)) as api:
        await api.collection()
        held = Held(api, monkeypatch)
        asking = [asyncio.create_task(api.client.post(SEARCH, json={"query": "x"})) for _ in range(2)]
        await held.until(2)
        assert_problem(await api.client.post(SEARCH, json={"query": "x"}), 429)
        await api.post(f"{PAPERS}/documents", {"documents": [DOCUMENT]})
        held.go.set()
        assert [(await one).status_code for one in asking] == [200, 200]
        assert (await api.client.post(SEARCH, json={"query": "x"})).status_code == 200


async def test_a_body_that_is_slow_to_arrive_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(limits=RequestLimits(concurrent=1)) as api:
        await api.collection()
        held, arrived = Held(api, monkeypatch), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b'{"query":'
            await arrived.wait()
            yield b'"x"}'

        headers = {"Content-Type": "application/json"}
        slowly = [asyncio.create_task(api.client.post(SEARCH, content=slow(), headers=headers)) for _ in range(3)]
        quickly = asyncio.create_task(api.client.post(SEARCH, json={"query": "x"}))
        await held.until(1)
        arrived.set()  # now all of them come at once, and there is no room left
        assert [assert_problem(await one, 429)["status"] for one in slowly] == [429] * 3
        held.go.set()
        assert (await quickly).status_code == 200


async def test_a_write_that_waits_for_workers_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(limits=RequestLimits(concurrent=1)) as api:
        await api.collection()
        forever = AsyncMock(side_effect=asyncio.Event().wait)
        monkeypatch.setattr(type(api.service.ingest), "wait_until_searchable", forever)
        write = f"{PAPERS}/documents"
        waiting = asyncio.create_task(api.client.post(write, params={"wait": True}, json={"documents": [DOCUMENT]}))
        async with asyncio.timeout(10):
            while not forever.await_count:
                await asyncio.sleep(0)
        await api.post(write, {"documents": [DOCUMENT]})
        waiting.cancel()


async def test_a_stream_does_not_take_the_room_of_other_writes() -> None:
    async with edge(limits=RequestLimits(concurrent=1)) as api:
        await api.collection()
        arrived, begun = asyncio.Event(), asyncio.Event()

        async def lines() -> AsyncIterator[bytes]:
            yield b'{"id": "a", "text": "one"}\n'
            begun.set()
            await arrived.wait()

        write, headers = f"{PAPERS}/documents", {"Content-Type": "application/x-ndjson"}
        stream = asyncio.create_task(api.client.post(write, content=lines(), headers=headers))
        await begun.wait()
        assert_problem(await api.client.post(write, content=b"{}", headers=headers), 429)
        await api.post(write, {"documents": [DOCUMENT]})
        arrived.set()
        assert (await stream).status_code == 200


async def test_another_key_is_admitted_beside_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(limits=RequestLimits(concurrent=2), api_keys=("flood", "calm")) as api:
        flood, calm = ({"Authorization": f"Bearer {key}"} for key in ("flood", "calm"))
        await api.client.put(PAPERS, headers=calm)
        held = Held(api, monkeypatch)
        asking = [asyncio.create_task(api.client.post(SEARCH, json={"query": "x"}, headers=flood)) for _ in range(2)]
        await held.until(2)
        assert_problem(await api.client.post(SEARCH, json={"query": "x"}, headers=flood), 429)
        served = asyncio.create_task(api.client.post(SEARCH, json={"query": "x"}, headers=calm))
        await held.until(3)
        held.go.set()
        assert [(await one).status_code for one in (*asking, served)] == [200] * 3


async def test_refusals_do_not_fill_the_log(api: Edge, full: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "service.api.middleware")
    await api.client.post(SEARCH, json={"query": "x"})
    assert not caplog.records
    await api.client.get("/livez")
    assert [record.__dict__["status"] for record in caplog.records] == [200]


@pytest.mark.parametrize("searching", [False, True])
async def test_other_requests_end_later_while_one_with_a_limit_is_under_way(
    monkeypatch: pytest.MonkeyPatch, searching: bool
) -> None:
    told: list[object] = []

    async def sleep(seconds: float) -> None:
        told.append(seconds)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def send(message: Message) -> None:
        told.append(message.get("body", message["type"]))

    async def receive() -> Message:
        raise AssertionError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    middleware = AdmissionMiddleware(answer, [APIRoute("/search", unread, methods=["POST"])], 1)
    if searching:
        Admission(middleware._limits[0][1], "a client").start()
    await middleware({"type": "http", "path": "/", "method": "GET", "headers": []}, receive, send)
    assert told == ["http.response.start", b"a", *([PACE_SECONDS] if searching else []), b"b"]
