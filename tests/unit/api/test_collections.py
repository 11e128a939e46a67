"""Collections and their versions over HTTP."""

import asyncio
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock

import orjson
import pytest

from service.core.collections import Collection
from service.core.ids import CollectionName
from service.core.query_syntax import ParsedQuery
from tests.edge import Edge, Json, api_fixture, assert_problem
from tests.fakes import FakeLexicon

api = api_fixture(collection=False)


async def test_a_new_collection_has_the_defaults_and_one_active_version(api: Edge) -> None:
    answer = await api.client.put("/v1/collections/papers")
    assert answer.status_code == 201
    created = answer.json()
    assert created["name"] == "papers"
    assert created["settings"] == {
        "embedder": {
            "model": "hashing:32",
            "revision": None,
            "query_prompt": "",
            "document_prompt": "",
            "dimensions": None,
            "identity": None,
        },
        "language": "en",
        "recall_target": 0.95,
        "chunking": {"max_tokens": None, "overlap_tokens": 32},
        "fusion": {"method": "convex", "alpha": 0.5, "k": 60},
        "rerank": {"depth": 50, "weight": 0.6},
        "candidates": 100,
        "tuned": None,
        "indexed": [],
        "synonyms": [],
    }
    assert created["counts"] == {"documents": 0, "chunks": 0, "pending": 0, "failed": 0}
    assert (created["active_version"], created["previous_version"]) == (1, None)
    assert [(one["number"], one["state"]) for one in created["versions"]] == [(1, "active")]
    assert created["lexical_lag_seconds"] == 0.0
    assert (await api.get("/v1/collections/papers")) == created


async def test_an_embedder_may_be_named_in_short_or_in_full(api: Edge) -> None:
    short = await api.collection("short", embedder="hashing:32")
    full = await api.collection("full", embedder={"model": "hashing:32"})
    assert short["settings"] == full["settings"]


async def test_a_put_changes_only_the_fields_that_were_sent(api: Edge) -> None:
    await api.collection(language="de", fusion={"alpha": 0.3}, chunking={"overlap_tokens": 16})
    await api.client.put("/v1/collections/papers", json={"rerank": {"depth": 20}})
    answer = await api.client.put("/v1/collections/papers", json={"fusion": {"method": "rrf"}, "recall_target": 0.9})
    assert answer.status_code == 200
    settings = answer.json()["settings"]
    assert (settings["language"], settings["recall_target"]) == ("de", 0.9)
    assert settings["fusion"] == {"method": "rrf", "alpha": 0.3, "k": 60}
    assert settings["chunking"] == {"max_tokens": None, "overlap_tokens": 16}
    assert settings["rerank"] == {"depth": 20, "weight": 0.6}


TUNED: dict[str, Any] = {
    "version": 1,
    "queries": 300,
    "folds": 5,
    "fusion": {"before": 0.5, "after": 0.75, "low": 0.125, "high": 0.375},
    "rerank": None,
}


async def test_the_tuning_record_is_kept_until_the_ranking_changes(api: Edge) -> None:
    await api.collection()
    wanted = {"fusion": {"alpha": 0.3}, "candidates": 200, "tuned": TUNED}
    answer = await api.client.put("/v1/collections/papers", json=wanted)
    tuned = answer.json()["settings"]["tuned"]
    assert tuned.pop("at")
    assert tuned == {**TUNED, "outdated": False}
    (entry, *_) = await api.trail()
    assert (entry["action"], entry["version"]) == ("tuned", 1)
    assert entry["details"]["after"]["tuned"]["fusion"] == TUNED["fusion"]
    assert (entry["details"]["before"]["candidates"], entry["details"]["after"]["candidates"]) == (100, 200)

    kept = await api.client.put("/v1/collections/papers", json={"language": "de"})
    assert kept.json()["settings"]["tuned"] is not None
    by_hand = await api.client.put("/v1/collections/papers", json={"candidates": 50})
    assert by_hand.json()["settings"]["tuned"] is None
    assert [one["action"] for one in (await api.trail())[:2]] == ["settings", "settings"]


async def test_a_promotion_marks_the_tuning_record_as_outdated(api: Edge) -> None:
    await api.collection()
    await api.client.put("/v1/collections/papers", json={"fusion": {"alpha": 0.3}, "tuned": TUNED})
    await api.ready(embedder="hashing:16")
    answer = await api.client.post("/v1/collections/papers/versions/2/promote", json={"force": True})
    assert answer.status_code == 200, answer.text
    settings = (await api.get("/v1/collections/papers"))["settings"]
    assert (settings["tuned"]["version"], settings["tuned"]["outdated"]) == (1, True)
    late = await api.client.put("/v1/collections/papers", json={"fusion": {"alpha": 0.4}, "tuned": TUNED})
    assert "version 2 is active" in assert_problem(late, 422, "tuned.version")["detail"]


async def test_candidates_come_from_the_search_or_else_from_the_settings(
    api: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    search = FakeLexicon.search

    async def watched(self: FakeLexicon, collection: Collection, words: ParsedQuery, limit: int, *rest: Any) -> Any:
        limits.append(limit)
        return await search(self, collection, words, limit, *rest)

    monkeypatch.setattr(FakeLexicon, "search", watched)
    await api.collection(candidates=7)
    await api.write({"id": "1", "text": "whale"})
    await api.search("whale", k=1, mode="lexical")
    await api.search("whale", k=1, mode="lexical", candidates=9)
    assert limits == [7, 9]


async def test_a_put_of_the_same_settings_is_not_a_conflict(api: Edge) -> None:
    created = await api.collection(embedder={"model": "default"}, chunking={"overlap_tokens": 32})
    again = await api.client.put("/v1/collections/papers", json={"embedder": "default", "chunking": {}})
    assert (again.status_code, again.json()) == (200, created)


async def test_concurrent_creations_both_succeed(api: Edge) -> None:
    both = await asyncio.gather(*(api.client.put("/v1/collections/papers", json={}) for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 201]


async def test_concurrent_changes_of_settings_are_all_kept(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.collection()
    seen, both_looked = api.store.collections.by_name, asyncio.Barrier(2)

    async def together(name: CollectionName) -> Collection:
        found = await seen(name)
        if not both_looked.broken:
            with suppress(asyncio.BrokenBarrierError, TimeoutError):
                await asyncio.wait_for(both_looked.wait(), 0.2)
        return found

    monkeypatch.setattr(api.store.collections, "by_name", together)
    changes: list[Json] = [{"language": "de"}, {"recall_target": 0.9}]
    both = await asyncio.gather(*(api.client.put("/v1/collections/papers", json=one) for one in changes))
    assert [answer.status_code for answer in both] == [200, 200]
    settings = (await api.get("/v1/collections/papers"))["settings"]
    assert (settings["language"], settings["recall_target"]) == ("de", 0.9)


async def test_a_put_of_a_collection_deleted_meanwhile_creates_it(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.collection()
    update = api.store.collections.update

    async def too_late(collection: Collection, *changes: Any) -> Collection:
        await api.store.collections.delete(collection.id)
        return await update(collection, *changes)

    monkeypatch.setattr(api.store.collections, "update", too_late)
    assert (await api.client.put("/v1/collections/papers", json={"language": "de"})).status_code == 201


async def test_the_list_leaves_out_a_collection_deleted_meanwhile(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        await api.collection(name)
    everything = await api.store.collections.all()
    await api.client.delete("/v1/collections/a?confirm=a")

    monkeypatch.setattr(api.store.collections, "all", AsyncMock(return_value=everything))
    assert [one["name"] for one in (await api.get("/v1/collections"))["collections"]] == ["b"]


async def test_a_changed_setting_applies_to_the_next_search(api: Edge) -> None:
    await api.collection()
    await api.write({"id": "a", "text": "cancel a task"})
    convex = (await api.search("cancel a task"))["hits"][0]["score"]
    await api.client.put("/v1/collections/papers", json={"fusion": {"method": "rrf", "k": 10}})
    rrf = (await api.search("cancel a task"))["hits"][0]["score"]
    assert convex == pytest.approx(1.0)
    assert rrf == pytest.approx(2 / 11)


async def test_a_deleted_collection_is_gone_at_once(api: Edge) -> None:
    await api.collection()
    await api.write({"id": "a", "text": "x"})
    await api.search("x")
    assert (await api.client.delete("/v1/collections/papers?confirm=papers")).status_code == 204
    assert_problem(await api.client.get("/v1/collections/papers"), 404)
    await api.refused("/v1/collections/papers/search", {"query": "x"}, 404)
    assert_problem(await api.client.delete("/v1/collections/papers?confirm=papers"), 404)


async def test_fields_are_declared_and_shown(api: Edge) -> None:
    created = await api.client.put("/v1/collections/papers", json={"indexed": ["year", "author.name"]})
    assert created.status_code == 201
    assert created.json()["settings"]["indexed"] == ["author.name", "year"]
    assert created.json()["fields"] == [{"field": "author.name", "state": "ready"}, {"field": "year", "state": "ready"}]
    await api.client.put("/v1/collections/papers", json={"language": "de"})
    assert (await api.get("/v1/collections/papers"))["settings"]["indexed"] == ["author.name", "year"]
    gone = await api.client.put("/v1/collections/papers", json={"indexed": []})
    assert (gone.json()["settings"]["indexed"], gone.json()["fields"]) == ([], [])


async def test_synonyms_are_kept_as_they_were_sent_and_can_be_taken_back(api: Edge) -> None:
    synonyms = [["car", "electric vehicle"], {"from": ["tv"], "to": ["television"]}]
    created = await api.collection(synonyms=synonyms)
    assert created["settings"]["synonyms"] == synonyms
    kept = await api.client.put("/v1/collections/papers", json={"recall_target": 0.9})
    assert kept.json()["settings"]["synonyms"] == synonyms
    copied = await api.client.put("/v1/collections/copy", json={"synonyms": kept.json()["settings"]["synonyms"]})
    assert copied.json()["settings"]["synonyms"] == synonyms
    gone = await api.client.put("/v1/collections/papers", json={"synonyms": []})
    assert gone.json()["settings"]["synonyms"] == []


@pytest.mark.parametrize(
    ("synonyms", "field"),
    [
        ([["car"]], "synonyms.0.group"),
        ([["car", "..."]], "synonyms.0.group.1"),
        ([["car", "x" * 51]], "synonyms.0.group.1"),
        ([["car", 3]], "synonyms.0.group.1"),
        ([{"from": ["tv"]}], "synonyms.0.rule.to"),
        ([{"from": [], "to": ["television"]}], "synonyms.0.rule.from"),
        ([{"from": ["tv"], "to": ["television"], "weight": 1}], "synonyms.0.rule.weight"),
        ([["a", "b"], "car, automobile"], "synonyms.1.rule"),
        ([["a", "b"]] * 1_001, "synonyms"),
        ([[f"w{n}" for n in range(11)]], "synonyms.0.group"),
        ({"car": "automobile"}, "synonyms"),
    ],
)
async def test_synonyms_that_cannot_be_used_are_refused(api: Edge, synonyms: Any, field: str) -> None:
    problem = assert_problem(await api.client.put("/v1/collections/papers", json={"synonyms": synonyms}), 422)
    assert [one["field"] for one in problem["errors"]] == [field]


async def test_a_declared_field_may_have_a_type(api: Edge) -> None:
    indexed = ["year", {"field": "at", "type": "datetime"}, {"field": "b", "type": None}]
    created = await api.client.put("/v1/collections/papers", json={"indexed": indexed})
    shown = [{"field": "at", "type": "datetime"}, "b", "year"]
    assert created.json()["settings"]["indexed"] == shown
    again = await api.client.put("/v1/collections/papers", json={"indexed": shown})
    assert (again.status_code, again.json()["settings"]["indexed"]) == (200, shown)
    await api.write({"id": "a", "text": "x", "metadata": {"at": "2024-05-01T12:00:00+02:00"}})
    await api.write({"id": "b", "text": "x", "metadata": {"at": "2024-05-01T11:00:00Z"}})
    where = {"at": {"$lt": "2024-05-01T10:30:00Z"}}
    assert [hit["id"] for hit in (await api.search("x", mode="lexical", filter=where))["hits"]] == ["a"]
    listed = await api.client.get("/v1/collections/papers/documents", params={"filter": orjson.dumps(where).decode()})
    assert [one["id"] for one in listed.json()["documents"]] == ["a"]
    bad = {"filter": {"at": {"$lt": 5}}}
    for route, body, at in (
        ("search", {"query": "x", **bad}, ""),
        ("similar/a", bad, ""),
        ("search/batch", {"searches": [{"query": "x"}, {"query": "x", **bad}]}, "searches.1."),
        ("documents/delete", bad, ""),
    ):
        answer = await api.client.post(f"/v1/collections/papers/{route}", json=body)
        assert_problem(answer, 422, f"{at}filter.at.$lt")
    answer = await api.client.post("/v1/collections/papers/documents/delete", json={"filter": where})
    assert answer.json() == {"deleted": 1}


@pytest.mark.parametrize(
    ("indexed", "field"),
    [
        ([{"field": "a", "type": "date"}], "indexed.0.type"),
        ([{"type": "number"}], "indexed.0.field"),
        (["$year"], "indexed.0"),
        (["a", "a"], "indexed.1"),
        ([1], "indexed.0"),
        ("year", "indexed"),
        (["a"] * 17, "indexed"),
    ],
)
async def test_invalid_declared_fields_are_refused(api: Edge, indexed: object, field: str) -> None:
    answer = await api.client.put("/v1/collections/papers", json={"indexed": indexed})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_an_alias_is_a_name_wherever_one_is_in_a_path(api: Edge) -> None:
    for name in ("blue", "green"):
        await api.collection(name)
        await api.write({"id": name, "text": f"a river that is {name}"}, name=name)
    assert await api.call("PUT", "/v1/aliases/live", {"collection": "blue"}) == {"alias": "live", "collection": "blue"}
    assert [hit["id"] for hit in (await api.search("river", "live"))["hits"]] == ["blue"]
    assert (await api.get("/v1/collections/live"))["name"] == "blue"
    await api.call("PUT", "/v1/collections/live", {"candidates": 50})
    assert (await api.get("/v1/collections/blue"))["settings"]["candidates"] == 50
    await api.call("PUT", "/v1/aliases/live", {"collection": "green"})
    assert [hit["id"] for hit in (await api.search("river", "live"))["hits"]] == ["green"]
    await api.write({"id": "new", "text": "another"}, name="live")
    assert await api.post("/v1/collections/green/count") == {"count": 2}
    switched = await api.post("/v1/aliases", {"actions": [{"alias": "live", "collection": None}, swap("a", "live")]})
    assert switched == {"aliases": [{"alias": "a", "collection": "green"}]}
    assert_problem(await api.client.get("/v1/collections/live"), 404)
    trail = (await api.get("/v1/collections/a/audit"))["entries"]
    assert [one["action"] for one in trail] == ["alias_set", "alias_deleted", "alias_set", "created"]
    assert_problem(await api.client.delete("/v1/collections/a", params={"confirm": "a"}), 428)
    assert (await api.client.delete("/v1/collections/a", params={"confirm": "green"})).status_code == 204
    assert await api.get("/v1/aliases") == {"aliases": []}


async def test_an_index_is_chosen_with_a_collection_and_never_changed_in_place(api: Edge) -> None:
    await api.collection("chosen", index={"storage": "binary", "m": 8})
    versions = (await api.get("/v1/collections/chosen/versions"))["versions"]
    assert (versions[0]["index"]["storage"], versions[0]["index"]["m"]) == ("binary", 8)
    url = "/v1/collections/chosen"
    for body in ({}, {"candidates": 9}, {"index": None}, {"index": {"storage": "binary"}}):
        assert (await api.client.put(url, json=body)).status_code == 200, body
    assert_problem(await api.client.put(url, json={"index": {"storage": "vector"}}), 409)
    assert_problem(await api.client.put("/v1/collections/new", json={"index": {"m": 50}}), 422, "index.ef_construction")


def swap(alias: str, collection: str | None) -> dict[str, str | None]:
    return {"alias": alias, "collection": collection}


@pytest.mark.parametrize(
    ("actions", "status"),
    [
        ([swap("papers", "papers")], 409),
        ([swap("x", "papers"), swap("papers", None)], 404),
        ([swap("x", "nobody")], 404),
        ([swap("x", "papers"), swap("x", None)], 422),
        ([swap("x", "papers"), swap("X", "papers")], 422),
        ([{"alias": "x"}], 422),
        ([], 422),
    ],
)
async def test_aliases_change_together_or_not_at_all(api: Edge, actions: list[Any], status: int) -> None:
    await api.collection("papers")
    assert_problem(await api.client.post("/v1/aliases", json={"actions": actions}), status)
    assert await api.get("/v1/aliases") == {"aliases": []}


async def test_a_collection_is_renamed_and_its_aliases_follow(api: Edge) -> None:
    for name in ("papers", "other"):
        await api.collection(name)
    await api.write({"id": "a", "text": "a river"})
    await api.call("PUT", "/v1/aliases/live", {"collection": "papers"})
    for taken in ("other", "live"):
        assert_problem(await api.client.post("/v1/collections/papers/rename", json={"name": taken}), 409)
        assert_problem(await api.client.post("/v1/collections/papers/copy", json={"name": taken}), 409)
    assert_problem(await api.client.post("/v1/collections/papers/rename", json={"name": "Not A Name"}), 422, "name")
    await api.search("river")
    assert (await api.post("/v1/collections/live/rename", {"name": "articles"}))["name"] == "articles"
    assert_problem(await api.client.post("/v1/collections/papers/search", json={"query": "river"}), 404)
    for name in ("articles", "live"):
        assert len((await api.search("river", name))["hits"]) == 1
