"""The Python client, sync and async: each operation once, on the app itself; retries, on a service that is played."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from azimuth_client import ApiError, AsyncClient, Client, Unreachable
from azimuth_client import operations as module
from azimuth_client.operations import Operations
from azimuth_client.shapes import SearchOptions
from service.api.schemas.search_request import SearchBody
from tests.edge import Edge, api_fixture

api = api_fixture()
DOCUMENTS: list[Any] = [
    {"id": f"d{number}/x", "text": f"text {number}", "metadata": {"n": number}} for number in range(4)
]


async def test_every_operation_asks_what_the_service_takes(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 1)
    transport = httpx.ASGITransport(api.client._transport.app)  # type: ignore[attr-defined]
    async with AsyncClient("http://t/", transport=transport) as client:
        assert await client.alive()
        assert await client.ready()
        assert [one["name"] for one in await client.collections()] == ["papers"]
        await client.ensure_collection("papers", {"language": "de"})
        assert (await client.collection("papers"))["settings"]["language"] == "en"
        assert (await client.put_collection("papers", {"language": "de"}))["settings"]["language"] == "de"
        assert (await client.write("papers", DOCUMENTS[:2]))["created"] == 2
        result = await client.import_documents("papers", DOCUMENTS)
        assert (result.sent, result.created, result.unchanged, result.errors) == (4, 2, 2, [])
        await api.encode()
        assert (await client.get("papers", "d1/x"))["text"] == "text 1"
        assert [one["id"] for one in await client.fetch("papers", ["d3/x", "none", "d0/x"])] == ["d3/x", "d0/x"]
        found = [one["id"] async for one in client.documents("papers", {"n": {"$gte": 2}}, include=[])]
        assert found == ["d2/x", "d3/x"]
        assert await client.count("papers", {"n": {"$lt": 3}}) == 3
        assert (await client.patch("papers", "d1/x", {"metadata": {"n": 7}}))["status"] == "updated"
        answer = await client.search("papers", "text 3", k=1, include=["metadata"])
        assert [(hit["id"], hit["metadata"]) for hit in answer["hits"]] == [("d3/x", {"n": 3})]
        first, second = await client.search_batch("papers", ["text 0", {"query": "text 2", "k": 1}])
        assert (first["hits"][0]["id"], second["hits"][0]["id"]) == ("d0/x", "d2/x")
        assert "d1/x" not in [hit["id"] for hit in await client.similar("papers", "d1/x", k=2)]
        completed = await client.suggest("papers", "text 3", k=1, filter={"n": 3})
        assert completed == [{"text": "text 3", "kind": "word", "documents": 1}]
        assert len((await client.embed(["a", "b"]))[1]) == 32
        assert await client.delete("papers", ["d0/x", "none"]) == {"deleted": 1, "missing": ["none"]}
        assert (await client.delete("papers", filter={"n": 2}))["deleted"] == 1
        assert (await client.delete_all("papers"))["deleted"] == 2
        await client.delete_collection("papers")
        with pytest.raises(ApiError, match="404") as error:
            await client.collection("papers")
        assert (error.value.status, error.value.kind) == (404, "collection-not-found")
        root = await client.create_key(name="root", role="admin")
    async with AsyncClient("http://t/", root["secret"], transport=transport) as client:
        made = await client.create_key(name="ci", collections=["logs-*"], filter={"tenant": "a"}, expires="90d")
        assert (await client.rotate_key("ci", overlap="0"))["secret"] != made["secret"]
        assert [(one["id"], one["active"]) for one in await client.keys()] == [
            ("ci", True),
            ("ci", False),
            ("root", True),
        ]
        await client.revoke_key("ci")


def test_both_clients_have_every_operation() -> None:
    names = {name for name, _ in inspect.getmembers(Operations, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in vars(Client) if not name.startswith("_")} == names | {"close"}
    assert all(
        inspect.signature(getattr(Client, name)) == inspect.signature(getattr(AsyncClient, name)) for name in names
    )


def test_each_event_loop_has_connections_of_its_own() -> None:
    """Those of a loop that was closed could not be used."""
    client = AsyncClient("http://t", transport=httpx.MockTransport(lambda _: httpx.Response(200, json={})))
    used = [asyncio.run(_used(client)) for _ in range(2)]
    assert used[0] is not used[1]


async def _used(client: AsyncClient) -> httpx.AsyncClient:
    assert await client.alive()
    assert client._http() is client._http()
    return client._http()


def test_options_of_a_search_are_those_of_the_service() -> None:
    assert SearchOptions.__annotations__.keys() <= SearchBody.model_fields.keys() - {"query"}


Answer = httpx.Response | Exception


class Played:
    """A service that gives these answers, then empty ones; `pauses` are what the client waited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Answer, key: str | None = None) -> None:
        self.sent: list[httpx.Request] = []
        self.pauses: list[float] = []
        self._answers = iter(answers)
        monkeypatch.setattr("time.sleep", self.pauses.append)
        self.client = Client("http://t", key, transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = next(self._answers, httpx.Response(200, json={"hits": []}))
        if isinstance(answer, Exception):
            raise answer
        return answer


def busy(status: int = 429, after: str | None = "7") -> httpx.Response:
    return httpx.Response(status, json={}, headers={"Retry-After": after} if after else {})


def search(client: Client) -> object:
    return client.search("c", "x")


def promote(client: Client) -> object:
    return client.call("POST", "/v1/collections/c/versions/1/promote")


@pytest.mark.parametrize(
    ("ask", "answers", "requests"),
    [
        (search, [busy(), busy(503), busy(502, None)], 4),
        (promote, [busy(), busy()], 3),
        (search, [httpx.ReadError("reset"), httpx.ConnectError("refused")], 3),
        (promote, [httpx.ConnectError("refused")], 2),
    ],
)
def test_what_ends_by_itself_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[Client], object], answers: list[Answer], requests: int
) -> None:
    played = Played(monkeypatch, *answers)
    ask(played.client)
    assert len(played.sent) == requests
    assert len({request.content for request in played.sent}) == 1


@pytest.mark.parametrize(
    ("ask", "answer", "error", "requests"),
    [
        (promote, httpx.ReadError("reset"), Unreachable, 1),
        (promote, busy(503), ApiError, 1),
        (search, httpx.Response(422, json={}), ApiError, 1),
        (search, busy(), ApiError, 6),
        (search, httpx.ConnectError("refused"), Unreachable, 3),
    ],
)
def test_it_gives_up_where_it_must(
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Client], object],
    answer: Answer,
    error: type[Exception],
    requests: int,
) -> None:
    played = Played(monkeypatch, *[answer] * 10)
    with pytest.raises(error):
        ask(played.client)
    assert len(played.sent) == requests


def test_it_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, busy(after="7"), busy(after="Wed, 21 Oct 2099 07:28:00 GMT"), busy(after="9999"))
    search(played.client)
    told, unknown, long = played.pauses
    assert 7 <= told <= 7 * 1.25
    assert 0 < unknown < 1
    assert long <= module.LONGEST_PAUSE * 1.25


def test_a_key_may_be_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, key="schlüssel")
    search(played.client)
    assert (b"Authorization", "Bearer schlüssel".encode()) in played.sent[0].headers.raw


def test_long_documents_are_not_gathered_by_the_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 100)
    answers = [httpx.Response(200, json={"errors": [{"line": 1, "error": "bad"}]}) for _ in range(3)]
    played = Played(monkeypatch, *answers)
    outcomes = list(played.client.import_batches("c", [b"x" * 60] * 5))
    assert [outcome["lines"] for outcome in outcomes] == [2, 2, 1]
    assert [error["line"] for outcome in outcomes for error in outcome["errors"]] == [1, 3, 5]
    assert b"".join(request.content for request in played.sent) == (b"x" * 60 + b"\n") * 5


async def test_documents_may_arrive_asynchronously(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def arriving() -> AsyncIterator[Any]:
        for document in DOCUMENTS:
            yield document

    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 3)
    seen: list[int] = []
    transport = httpx.ASGITransport(api.client._transport.app)  # type: ignore[attr-defined]
    async with AsyncClient("http://t", transport=transport) as client:
        result = await client.import_documents("papers", arriving(), progress=lambda so_far: seen.append(so_far.sent))
    assert (result.created, seen) == (4, [3, 4])


def test_nothing_is_read_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"{}"

    played = Played(monkeypatch, *[httpx.Response(200, json={}) for _ in range(2)])
    batches = played.client.import_batches("c", endless())
    next(batches)
    assert len(played.sent) == 1
