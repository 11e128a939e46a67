"""What a key sees of a service: its collections, its documents, its rate."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.datastructures import Headers

from service.api.key_ring import KeyRing, TokenBucket
from service.api.permissions import PERMISSIONS
from service.api.visible import VisibleCollections, VisibleDocuments
from service.core.access import ApiKey, digest_of
from service.core.errors import DatabaseUnavailable, RateLimited
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from tests.edge import Edge, assert_problem, edge, hit_ids
from tests.fakes import FakeApiKeys


def key(name: str, role: Any = "admin", **fields: Any) -> ApiKey:
    """Its name is its secret."""
    return ApiKey(name=name, digest=digest_of(name.encode()), role=role, **{"created_at": datetime.now(UTC), **fields})


@pytest.fixture
def store() -> FakeApiKeys:
    return FakeApiKeys()


@pytest.fixture
async def api(store: FakeApiKeys) -> AsyncIterator[Edge]:
    """Collections `papers`, `logs-1` and `private`. Of the documents of `papers` each tenant has one."""
    async with edge(key_store=store, missing=_missing) as running:
        for name in ("papers", "logs-1", "private"):
            await running.collection(name)
        documents = [{"id": one, "text": f"a river of {one}", "metadata": {"tenant": one}} for one in "ab"]
        await running.write(*documents, {"id": "c", "text": "a river of nobody"})
        await store.create(key("some", collections=("papers", "logs-*")), "tests")
        await store.create(key("bound", "write", collections=("papers",), filter={"tenant": "a"}), "tests")
        await store.create(key("root"), "tests")
        await running.service.keys.refresh()
        yield running


async def _missing() -> list[str]:
    return ["lexical index of private: being built"]


def use(api: Edge, secret: str) -> Edge:
    api.client.headers["api-key"] = secret
    return api


async def test_from_the_first_key_on_keys_are_required(store: FakeApiKeys) -> None:
    """Also when it has ended: a service does not open itself."""
    async with edge(key_store=store) as api:
        assert (await api.client.get("/v1/collections")).status_code == 200
        await store.create(key("ci", expires_at=datetime.now(UTC) + timedelta(seconds=60)), "tests")
        await api.service.keys.refresh()
        assert (await api.client.get("/v1/collections")).status_code == 401
        assert (await use(api, "ci").client.get("/v1/collections")).status_code == 200
        await store.end("ci", datetime.now(UTC), "tests")
        await api.service.keys.refresh()
        assert (await api.client.get("/v1/collections")).status_code == 401


async def test_a_key_ends_at_its_moment_without_being_read_again(store: FakeApiKeys) -> None:
    ring = KeyRing(store=store)
    await store.create(key("ci", expires_at=datetime.now(UTC) + timedelta(milliseconds=50)), "tests")
    await ring.refresh()
    assert ring.find(Headers({"api-key": "ci"})) is not None
    await asyncio.sleep(0.06)
    assert ring.find(Headers({"api-key": "ci"})) is None


async def test_other_collections_do_not_exist(api: Edge) -> None:
    """Whether there is one of the name or not, the answer is the same, up to the name. On all routes of collections."""
    use(api, "some")
    for route in (route for route in PERMISSIONS if "{collection}" in route):
        method, path = route.split()
        for body in (None, {}, {"query": "x"}, {"documents": [{"id": "a", "text": "x"}]}):
            urls = [path.format(collection=name, id="a", number=1) for name in ("private", "nowhere")]
            there, nowhere = [await api.client.request(method, url, json=body) for url in urls]
            assert there.status_code == nowhere.status_code in (404, 415, 422), route
            same = [one.json() | {"request_id": ""} for one in (there, nowhere)]
            assert str(same[0]).replace("private", "nowhere") == str(same[1])


async def test_a_key_exports_what_it_sees_and_may_be_bound_to_ids(api: Edge, store: FakeApiKeys) -> None:
    await store.create(key("of-ids", "write", collections=("papers",), filter={"$id": {"$in": ["b", "new"]}}), "tests")
    await api.service.keys.refresh()
    for secret, visible in (("bound", ["a"]), ("of-ids", ["b"]), ("some", ["a", "b", "c"])):
        answer = await use(api, secret).client.get("/v1/collections/papers/export", params={"vectors": "true"})
        assert [json.loads(line)["id"] for line in answer.content.splitlines()] == visible
        found = await api.post(
            "/v1/collections/papers/documents/fetch", {"ids": ["a", "b", "c"], "include": ["vectors"]}
        )
        assert [one["id"] for one in found["documents"]] == visible
        assert {hit["id"] for hit in (await api.search("river"))["hits"]} == set(visible)
        told = await api.client.get("/v1/collections/papers/export", params={"header": "true"})
        if secret == "some":
            header = json.loads(told.content.splitlines()[0])["azimuth_export"]
            assert header.keys() == {"settings", "fingerprint", "aliases", "judgments"}
        else:
            assert_problem(told, 403)
    use(api, "of-ids")
    documents = "/v1/collections/papers/documents"
    assert_problem(await api.client.post(documents, json={"documents": [{"id": "d", "text": "x"}]}), 403)
    assert (await api.post(documents, {"documents": [{"id": "new", "text": "x"}]}))["created"] == 1
    assert_problem(await api.client.delete(f"{documents}/a"), 404)
    assert await api.post("/v1/collections/papers/count") == {"count": 2}


async def test_an_alias_widens_no_key(api: Edge) -> None:
    aliases = "/v1/aliases"
    actions = [{"alias": "logs-live", "collection": "private"}, {"alias": "current", "collection": "papers"}]
    await use(api, "root").post(aliases, {"actions": actions})
    own = {"aliases": [{"alias": "current", "collection": "papers"}]}
    for secret, visible in (("some", {"a", "b", "c"}), ("bound", {"a"})):
        assert await use(api, secret).get(aliases) == own
        assert {hit["id"] for hit in (await api.search("river", "current"))["hits"]} == visible
        refused = api.client.get("/v1/collections/logs-live/documents")
        assert "private" not in str(assert_problem(await refused, 404))
        assert_problem(await api.client.post("/v1/collections/logs-live/search", json={"query": "river"}), 404)
    assert await use(api, "bound").post("/v1/collections/current/count") == {"count": 1}
    assert_problem(await api.client.put(f"{aliases}/current", json={"collection": "papers"}), 403)
    use(api, "some")
    for alias, collection, status in [
        ("logs-live", "papers", 404),
        ("other", "papers", 404),
        ("logs-mine", "private", 404),
        ("logs-mine", "logs-live", 404),
        ("logs-mine", "current", 200),
    ]:
        answer = await api.client.put(f"{aliases}/{alias}", json={"collection": collection})
        assert answer.status_code == status, (alias, collection, answer.text)
    assert_problem(await api.client.delete(f"{aliases}/logs-live"), 404)
    assert_problem(await api.client.delete(f"{aliases}/current"), 404)
    for verb, name, status in [("copy", "private-2", 404), ("rename", "other", 404), ("copy", "logs-2", 201)]:
        answer = await api.client.post(f"/v1/collections/papers/{verb}", json={"name": name})
        assert answer.status_code == status, answer.text


async def test_what_tells_names_tells_those_of_the_key(api: Edge) -> None:
    listed = (await use(api, "some").get("/v1/collections"))["collections"]
    assert [one["name"] for one in listed] == ["logs-1", "papers"]
    for secret, told in (("", False), ("some", False), ("bound", False), ("root", True)):
        problem = assert_problem(await use(api, secret).client.get("/readyz"), 503)
        assert ("private" in str(problem)) is told
    assert (await use(api, "some").client.get("/metrics")).status_code == 403
    assert (await api.client.put("/v1/collections/logs-2")).status_code == 201
    assert (await api.client.put("/v1/collections/other")).status_code == 404


async def test_a_bound_key_explores_only_what_it_sees(api: Edge) -> None:
    url, everything = "/v1/collections/papers", {"threshold": -1, "clusters": 2, "labels": ["a river", "a mountain"]}
    for name, which, sent, seen in (
        ("duplicates", "compared", "threshold", 1),
        ("clusters", "compared", "clusters", 1),
        ("classify", "results", "labels", ["a"]),
    ):
        found = (await use(api, "bound").post(f"{url}/{name}", {sent: everything[sent]}))[which]
        assert (found if which == "compared" else [one["id"] for one in found]) == seen, name
    examples = [{"id": "a", "label": "x"}, {"id": "b", "label": "y"}]
    problem = await api.refused(f"{url}/classify", {"examples": examples}, 422, "examples.1.id")
    assert "no encoded document" in problem["detail"]


async def test_everything_that_a_bound_key_deletes_is_what_it_sees(api: Edge) -> None:
    documents = "/v1/collections/papers/documents"
    assert (await use(api, "bound").post(f"{documents}/delete", {"all": True}, confirm="papers")) == {"deleted": 1}
    assert [one["id"] for one in (await use(api, "root").get(documents))["documents"]] == ["b", "c"]


async def test_actors_are_named_by_their_keys(api: Edge) -> None:
    await use(api, "some").call("PUT", "/v1/collections/papers", {"recall_target": 0.9})
    assert (await api.trail())[0]["actor"] == "key some"


async def test_documents_that_the_filter_does_not_admit_do_not_exist(api: Edge) -> None:
    use(api, "bound")
    papers = "/v1/collections/papers"
    assert [one["id"] for one in (await api.get(f"{papers}/documents"))["documents"]] == ["a"]
    everything = {"$or": [{"tenant": "b"}, {"tenant": {"$exists": False}}]}
    for mode in ("hybrid", "dense", "lexical"):
        answer = await api.search("a river of b nobody", mode=mode, explain=True)
        assert (hit_ids(answer), answer["plan"]["selectivity"]) == (["a"], None)
        assert hit_ids(await api.search("river", mode=mode, filter=everything)) == []
    for id_ in ("b", "c", "nothing"):
        assert_problem(await api.client.get(f"{papers}/documents/{id_}"), 404)
        assert_problem(await api.client.delete(f"{papers}/documents/{id_}"), 404)
        assert_problem(await api.client.patch(f"{papers}/documents/{id_}", json={"title": "changed"}), 404)
        assert_problem(await api.client.post(f"{papers}/similar/{id_}"), 404)
        problem = await api.refused(f"{papers}/search", {"like": {"positive": ["a"], "negative": [id_]}}, 422)
        assert problem["errors"] == [{"field": "like.negative.0", "message": f"there is no document '{id_}'"}]
    assert (await api.post(f"{papers}/documents/delete", {"ids": ["b", "c"]}))["deleted"] == 0
    assert (await api.post(f"{papers}/documents/delete", {"filter": everything}))["deleted"] == 0
    assert await api.post(f"{papers}/count") == {"count": 1}
    assert await api.post(f"{papers}/count", {"filter": everything}) == {"count": 0}
    there = await api.post(f"{papers}/documents/fetch", {"ids": ["a", "b", "c"]})
    assert ([one["id"] for one in there["documents"]], there["missing"]) == (["a"], ["b", "c"])
    assert_problem(await api.client.patch(f"{papers}/documents/a", json={"metadata": {"tenant": "b"}}), 403)
    assert [one["id"] for one in (await use(api, "root").get(f"{papers}/documents"))["documents"]] == ["a", "b", "c"]


async def test_facets_count_visible_documents_alone(api: Edge) -> None:
    body = {"facets": ["tenant"], "filter": {"tenant": {"$exists": True}}}
    for path, asked in (("facets", body), ("search", {**body, "query": "river"}), ("facets", {"facets": ["tenant"]})):
        answer = await use(api, "bound").post(f"/v1/collections/papers/{path}", asked)
        assert answer["facets"]["tenant"]["values"] == [{"value": "a", "count": 1}]
        assert answer["facets"]["tenant"]["missing"] == 0
    await use(api, "some").refused("/v1/collections/private/facets", body, 404)


async def test_suggestions_have_words_of_visible_documents_alone(api: Edge) -> None:
    await use(api, "root").write({"id": "d", "text": "rivalry and secrets", "metadata": {"tenant": "b"}})
    url, everything = "/v1/collections/papers/suggest", {"tenant": {"$exists": True}}
    for typed, seen in (("riv", ["river"]), ("a riv", ["a river"]), ("secr", []), ("secrets riv", [])):
        by_body = await use(api, "bound").post(url, {"query": typed, "filter": everything})
        for answer in (await api.get(url, q=typed), by_body):
            assert [(one["text"], one["documents"]) for one in answer["suggestions"]] == [(text, 1) for text in seen]
    await use(api, "some").refused("/v1/collections/private/suggest", {"query": "riv"}, 404)


def test_a_new_method_of_a_port_is_either_narrowed_or_missing() -> None:
    """What is added to these must be thought of in `visible.py`."""

    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    of_searches = {"match_filter", "passages", "texts", "in_order", "metadata"}
    assert methods(Documents) - methods(VisibleDocuments) == of_searches
    of_one_that_was_found = {"get", "update", "delete", "fields"}
    assert methods(Collections) - methods(VisibleCollections) == of_one_that_was_found


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"id": "new", "metadata": {"tenant": "b"}}, "does not pass the filter"),
        ({"id": "new"}, "does not pass the filter"),
        ({"id": "a", "metadata": {"tenant": "b"}}, "does not pass the filter"),
        ({"id": "new", "metadata": {"tenant": ["a", "b"]}}, "several values"),
        ({"id": "new", "metadata": {"tenant": ["a", "a"]}}, "several values"),
        ({"id": "b", "metadata": {"tenant": "a"}}, "cannot be used"),
        ({"id": "c", "metadata": {"tenant": "a"}}, "cannot be used"),
    ],
    ids=str,
)
async def test_a_bound_key_writes_and_replaces_only_what_it_sees(
    api: Edge, document: dict[str, Any], reason: str
) -> None:
    sent, own = {"text": "changed", **document}, {"id": "own", "text": "x", "metadata": {"tenant": "a"}}
    before = await use(api, "root").get("/v1/collections/papers/documents")
    url = "/v1/collections/papers/documents"
    problem = await use(api, "bound").refused(url, {"documents": [own, sent]}, 403)
    assert (problem["type"], reason in problem["errors"][0]["message"]) == ("urn:azimuth:error:foreign-documents", True)
    assert await use(api, "root").get(url) == before
    lines = "\n".join(str(one).replace("'", '"') for one in (sent, own, sent))
    answer = await use(api, "bound").client.post(url, content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    assert answer.json()["created"] == 1
    assert [one["line"] for one in answer.json()["errors"]] == [1, 3]


async def test_a_filter_that_does_not_fit_the_declared_types_admits_nothing(api: Edge) -> None:
    """What it means there is unknown, so it must not become a filter that all documents pass, or a fault."""
    body = {"indexed": [{"field": "tenant", "type": "datetime"}]}
    await use(api, "root").call("PUT", "/v1/collections/papers", body)
    for method, path in (("GET", "/documents"), ("GET", "/documents/a"), ("POST", "/search"), ("GET", "")):
        answer = await use(api, "bound").client.request(
            method, f"/v1/collections/papers{path}", json={"query": "river"} if method == "POST" else None
        )
        assert "does not fit" in assert_problem(answer, 403)["detail"]


async def test_a_batch_shares_its_encoding_and_keeps_the_filter(api: Edge) -> None:
    searches = [{"query": "a river of b", "mode": mode} for mode in ("dense", "hybrid", "lexical")]
    answer = await use(api, "bound").post("/v1/collections/papers/search/batch", {"searches": searches})
    assert [hit_ids(one) for one in answer["results"]] == [["a"]] * 3


async def test_a_rate_is_told_and_held(api: Edge, store: FakeApiKeys) -> None:
    await store.create(key("slow", "read", rate="3/h"), "tests")
    await api.service.keys.refresh()
    for remaining in (2, 1, 0):
        answer = await use(api, "slow").client.get("/v1/collections")
        assert (answer.status_code, answer.headers["RateLimit-Remaining"]) == (200, str(remaining))
        assert answer.headers["RateLimit-Policy"] == '"key";q=3;w=3600'
        assert answer.headers["RateLimit"].startswith(f'"key";r={remaining};t=')
    answer = await api.client.get("/v1/collections")
    assert assert_problem(answer, 429)["type"] == "urn:azimuth:error:rate-limited"
    assert 1 <= int(answer.headers["Retry-After"]) <= 1_200
    assert int(answer.headers["RateLimit-Reset"]) == int(answer.headers["Retry-After"])
    assert (await api.client.get("/livez")).status_code == 200
    assert "RateLimit" not in (await use(api, "root").client.get("/v1/collections")).headers


async def test_a_rate_holds_for_all_processes_and_through_a_rotation(store: FakeApiKeys) -> None:
    await store.create(key("slow", rate="10/h"), "tests")
    rings = [KeyRing(store=store) for _ in range(3)]
    for ring in rings:
        await ring.refresh()

    def used(ring: KeyRing, secret: str) -> int:
        """How many of a hundred requests this process admits."""
        known, count = ring.find(Headers({"api-key": secret})), 0
        assert known is not None
        try:
            for count in range(100):  # noqa: B007
                ring.admit(known)
        except RateLimited:
            return count
        raise AssertionError

    assert used(rings[0], "slow") == 10
    await store.end("slow", datetime.now(UTC), "tests", successor=digest_of(b"new"), overlap=timedelta(hours=1))
    for _ in range(2):
        for ring in rings:
            await ring.refresh()
    assert [used(ring, secret) for ring in rings for secret in ("slow", "new")] == [0] * 6
    assert [one.requests for one in await store.all()] == [0, 10]


async def test_use_is_not_lost_when_the_database_is_away_for_a_moment(store: FakeApiKeys) -> None:
    await store.create(key("ci"), "tests")
    ring = KeyRing(store=store)
    await ring.refresh()
    known = ring.find(Headers({"api-key": "ci"}))
    assert known is not None
    ring.admit(known)
    record_use, store.record_use = store.record_use, AsyncMock(side_effect=DatabaseUnavailable)  # type: ignore[method-assign]
    with pytest.raises(DatabaseUnavailable):
        await ring.refresh()
    store.record_use = record_use  # type: ignore[method-assign]
    assert ring.find(Headers({"api-key": "ci"})) is not None
    await ring.refresh()
    assert (await store.all())[0].requests == 1


async def test_a_key_that_cannot_be_read_is_refused_and_others_work(store: FakeApiKeys) -> None:
    await store.create(key("odd", filter={"$newer": 1}), "tests")
    await store.create(key("ci"), "tests")
    ring = KeyRing(store=store)
    await ring.refresh()
    assert [ring.find(Headers({"api-key": one})) is None for one in ("odd", "ci")] == [True, False]


def test_a_bucket_is_refilled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 100.0
    monkeypatch.setattr("service.api.key_ring.time.monotonic", lambda: at)
    bucket = TokenBucket("2/s")
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    assert bucket.wait_seconds == 1
    at = 100.6
    assert [bucket.take() for _ in range(2)] == [True, False]
    at = 1e6
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    bucket.take(1_000, even_if_empty=True)
    assert bucket.tokens == -2
