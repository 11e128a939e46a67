"""The lifecycle as clients see it: a whole service changes the embedder of a collection, and goes back."""

from typing import Any

import httpx
import pytest

from tests.edge import assert_problem
from tests.integration.conftest import written
from tests.running import wait_for

pytestmark = pytest.mark.database

TEXTS = {
    "wait_for": "cancel a task after a timeout",
    "sort": "sort a list by several keys",
    "rmtree": "delete a directory with everything in it",
}


@pytest.fixture
def papers(client: httpx.Client) -> None:
    client.delete("/v1/collections/papers?confirm=papers")
    written(client, "papers", *({"id": name, "text": text} for name, text in TEXTS.items()))


def reached(client: httpx.Client, path: str, state: str) -> Any:
    """The version once it is in this state."""
    return wait_for(lambda: (one := ok(client.get(path)))["state"] == state and one, lambda: client.get(path).text)


def ok(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


@pytest.mark.usefixtures("papers")
def test_promote_and_roll_back_over_http(client: httpx.Client) -> None:
    versions, search = "/v1/collections/papers/versions", "/v1/collections/papers/search"
    question = {"query": "cancel after a timeout", "mode": "dense", "k": 3, "explain": True}
    judgments = {
        "queries": [{"_id": name, "text": text} for name, text in TEXTS.items()],
        "qrels": [{"query-id": name, "corpus-id": name, "score": 1} for name in TEXTS],
    }
    assert ok(client.post("/v1/collections/papers/judgments", json=judgments))["unknown_documents"] == 0
    before = ok(client.post(search, json=question))

    answer = client.post(versions, json={"embedder": "hashing:32", "index": {"storage": "vector"}})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{versions}/2"
    ready = reached(client, f"{versions}/2", "ready")
    assert ready["progress"]["done"] == 3
    names = {check["name"] for check in ready["checks"]}
    assert {"complete", "canary", "warm", "recall", "geometry", "judgments"} <= names
    assert ok(client.post(search, json=question))["embedder_version"] == 1

    promoted = client.post(f"{versions}/2/promote")
    if promoted.status_code == 409:
        failed = assert_problem(promoted, 409, None, "checks")
        assert {check["name"] for check in failed["checks"]} == names
    assert ok(client.post(f"{versions}/2/promote", json={"force": True}))["active"] is True
    after = ok(client.post(search, json=question))
    assert after["embedder_version"] == 2
    assert after["hits"][0]["id"] == "wait_for"

    written(client, "papers", {"id": "late", "text": "cancel after a timeout"})
    assert ok(client.post(f"{versions}/rollback"))["number"] == 1

    def late() -> Any:
        found = ok(client.post(search, json=question))
        return found["hits"][0]["id"] == "late" and found

    again = wait_for(late, "found by the first version, whose worker comes to it behind the active one")
    assert again["embedder_version"] == 1
    cosines = {hit["id"]: hit["explain"]["dense"]["score"] for hit in before["hits"]}
    for hit in again["hits"][1:]:
        assert hit["explain"]["dense"]["score"] == pytest.approx(cosines[hit["id"]], abs=1e-6)

    assert ok(client.delete(f"{versions}/2"))["state"] == "retired"
    assert_problem(client.post(search, json={**question, "embedder_version": 2}), 409)
    entries = ok(client.get("/v1/collections/papers/audit"))["entries"]
    actions = [entry["action"] for entry in reversed(entries)]
    steps = ["registered", "ready", "promoted", "rolled_back", "retired"]
    assert actions[0] == "created"
    assert [one for one in actions if one in steps] == steps


def test_client_vectors_are_stored_and_found(client: httpx.Client) -> None:
    client.delete("/v1/collections/theirs?confirm=theirs")
    embedder = {"model": "external", "dimensions": 3, "identity": "theirs"}
    ok(client.put("/v1/collections/theirs", json={"embedder": embedder}))
    rows = [
        {"id": "east", "text": "to the east", "vector": [5, 0, 0]},
        {"id": "up", "text": "upwards", "vector": [0, 0, 1e-3]},
    ]
    answer = ok(client.post("/v1/collections/theirs/documents?wait=true", json={"documents": rows}))
    assert (answer["created"], answer["searchable"]) == (2, True)
    search = "/v1/collections/theirs/search"
    found = ok(client.post(search, json={"vector": [0.1, 0, 9], "include": ["vector"]}))
    assert [hit["id"] for hit in found["hits"]] == ["up", "east"]
    assert [hit["vector"] for hit in found["hits"]] == [[0, 0, 1], [1, 0, 0]]
    both = ok(client.post(search, json={"query": "east", "vector": [0, 0, 1], "explain": True}))
    assert {hit["id"] for hit in both["hits"]} == {"east", "up"}
    (degraded,) = ok(client.post(search, json={"query": "east"}))["degraded"]
    assert degraded["stage"] == "dense"
    mute = {"documents": [{"id": "mute", "text": "without"}]}
    assert ok(client.post("/v1/collections/theirs/documents?wait=true", json=mute))["searchable"] is False
