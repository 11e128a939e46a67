"""The lifecycle of embedder versions over HTTP: registered, filled, judged, promoted, taken back, retired."""

from typing import Any, cast

import httpx
import pytest
from pydantic import TypeAdapter

from service.api.schemas import versions
from service.core.collections import Collection
from service.core.versions import EmbedderVersion, PromotionCheck
from tests.edge import Edge, Json, api_fixture, assert_problem, edge

PATH = "/v1/collections/papers/versions"
SEARCH = "/v1/collections/papers/search"
SMALLER: Json = {"embedder": {"model": "hashing:16"}}
SHAPE = TypeAdapter(versions.VersionAnswer)


api = api_fixture({"id": "a", "text": "cancel a task"}, {"id": "b", "text": "sort a list"})


async def worse(collection: Collection, version: EmbedderVersion) -> tuple[PromotionCheck, ...]:
    """Evidence that speaks against every version."""
    return (
        PromotionCheck(name="recall", passed=True, detail="0.99 of 0.95", figures={"recall": 0.99}),
        PromotionCheck(name="geometry", passed=False, detail="collapsed", figures={"effective_rank": 1.1}),
        PromotionCheck(name="judgments", passed=False, detail="nDCG@10 0.48 against 0.65"),
    )


doubtful = api_fixture({"id": "a", "text": "cancel a task"}, name="doubtful", measure=worse)


def valid(answer: Json) -> Json:
    """The answer, which has the documented shape."""
    SHAPE.validate_python(answer)
    return answer


async def post(api: Edge, path: str, body: Any = None) -> httpx.Response:
    """With no body at all where there is nothing to say."""
    return await api.client.post(f"{PATH}/{path}", **({} if body is None else {"json": body}))


async def active(api: Edge) -> int:
    return cast(int, (await api.get("/v1/collections/papers"))["active_version"])


async def test_a_new_version_is_filled_from_now_on_and_the_active_one_answers(api: Edge) -> None:
    answer = await api.client.post(PATH, json={**SMALLER, "note": "smaller"})
    assert answer.status_code == 202
    made = valid(answer.json())
    assert answer.headers["location"] == f"{PATH}/2"
    assert (made["number"], made["state"], made["active"], made["previous"]) == (2, "backfilling", False, False)
    assert (made["dimensions"], made["paused"], made["reason"]) == (16, False, None)
    assert (made["checks"], made["gathered_at"]) == ([], None)
    assert made["progress"] == {"done": 0, "total": 2, "failed": 0, "per_second": None, "eta_seconds": None}
    assert await api.version(2) == made
    assert (await api.search("cancel"))["embedder_version"] == 1
    (newest, *_) = await api.trail()
    assert (newest["action"], newest["version"], newest["note"]) == ("registered", 2, "smaller")
    assert newest["actor"] == "client 127.0.0.1"


async def test_what_is_left_out_is_as_in_the_active_version(api: Edge) -> None:
    await api.ready(chunking={"max_tokens": 64}, index={"m": 8, "storage": "binary"})
    await post(api, "2/promote")
    made = await api.register(embedder="hashing:16", index={"ef_construction": 200})
    assert made["embedder"]["model"] == "hashing:16"
    assert made["chunking"] == {"max_tokens": 64, "overlap_tokens": 32}
    assert made["index"] == {"kind": "hnsw", "m": 8, "ef_construction": 200, "storage": "binary"}


async def test_an_existing_version_is_a_409_with_its_number(api: Edge) -> None:
    await api.register(**SMALLER)
    for body, number in ((SMALLER, "2"), ({}, "1")):
        problem = await api.refused(PATH, body, 409, "version")
        assert problem["type"] == "urn:azimuth:error:version-exists"
        assert problem["errors"] == [{"field": "version", "message": number}]
    assert (await api.client.post(PATH)).status_code == 409


async def test_ef_construction_and_m_must_fit_whichever_was_sent(api: Edge) -> None:
    for index in ({"m": 40}, {"ef_construction": 31}, {"m": 64, "ef_construction": 127}):
        await api.refused(PATH, {"index": index}, 422, "index.ef_construction")
    assert (await api.get(PATH))["versions"][1:] == []
    await api.register(index={"m": 64, "ef_construction": 128})


async def test_a_version_that_is_filled_shows_its_evidence_and_answers_once_it_is_promoted(api: Edge) -> None:
    ready = valid(await api.ready(**SMALLER))
    assert ready["progress"]["done"] == 2
    verdicts = {check["name"]: check["passed"] for check in ready["checks"]}
    assert verdicts == {"complete": True, "canary": True, "warm": True, "recall": True, "judgments": None}
    assert ready["gathered_at"] is not None
    assert (await api.search("cancel"))["embedder_version"] == 1

    answer = await post(api, "2/promote", {"note": "better"})
    assert answer.status_code == 200
    promoted = valid(answer.json())
    assert (promoted["state"], promoted["active"], promoted["previous"]) == ("active", True, False)
    assert {check["name"] for check in promoted["checks"]} == set(verdicts)
    assert (await api.search("cancel"))["embedder_version"] == 2  # at once, though it was remembered
    listed = await api.get(PATH)
    assert (listed["active_version"], listed["previous_version"]) == (2, 1)
    told = [(one["state"], one["active"], one["previous"]) for one in listed["versions"]]
    assert told == [("ready", False, True), ("active", True, False)]
    collection = await api.get("/v1/collections/papers")
    assert (collection["active_version"], collection["previous_version"]) == (2, 1)
    assert collection["settings"]["embedder"]["model"] == "hashing:16"
    (newest, *_) = await api.trail()
    assert (newest["action"], newest["version"], newest["before"], newest["note"]) == ("promoted", 2, 1, "better")
    assert newest["details"]["forced"] is False
    assert {check["name"] for check in newest["details"]["checks"]} == set(verdicts)


async def test_rolling_back_is_immediate_and_can_itself_be_taken_back(api: Edge) -> None:
    await api.ready(**SMALLER)
    await post(api, "2/promote")
    await api.write({"id": "c", "text": "written to both"})
    answer = await post(api, "rollback", {"note": "it was not"})
    assert answer.status_code == 200
    assert (answer.json()["number"], answer.json()["active"]) == (1, True)
    found = await api.search("written to both", mode="dense")
    assert (found["embedder_version"], found["hits"][0]["id"]) == (1, "c")
    assert (await api.trail())[0]["action"] == "rolled_back"
    assert (await post(api, "rollback")).json()["number"] == 2


async def test_a_roll_back_with_from_can_be_repeated(api: Edge) -> None:
    await api.ready(**SMALLER)
    await post(api, "2/promote")
    assert (await post(api, "rollback", {"from": 2})).json()["number"] == 1
    assert_problem(await post(api, "rollback", {"from": 2}), 409)
    assert (await api.get(PATH))["active_version"] == 1


async def test_a_roll_back_without_a_previous_version_is_a_409(api: Edge) -> None:
    assert_problem(await post(api, "rollback"), 409)
    await api.ready(**SMALLER)
    await post(api, "2/promote")
    await api.client.delete(f"{PATH}/1")
    assert_problem(await post(api, "rollback"), 409)
    assert (await api.get(PATH))["previous_version"] is None


async def test_evidence_against_it_refuses_a_promotion_with_everything_that_is_known(doubtful: Edge) -> None:
    await doubtful.ready(**SMALLER)
    for body in (None, {}, {"force": False}):
        problem = assert_problem(await post(doubtful, "2/promote", body), 409, "geometry", "checks")
        assert problem["type"] == "urn:azimuth:error:promotion-refused"
        assert [one["field"] for one in problem["errors"]] == ["geometry", "judgments"]
        assert problem["errors"][0]["message"] == "collapsed"
        assert problem["checks"] == (await doubtful.version(2))["checks"]
        names = {check["name"] for check in problem["checks"]}
        assert names == {"complete", "canary", "warm", "recall", "geometry", "judgments"}
    assert await active(doubtful) == 1


async def test_a_backfill_can_be_paused_and_resumed(api: Edge) -> None:
    await api.register(**SMALLER)
    for _ in range(2):  # again changes nothing
        assert (await post(api, "2/pause")).json()["paused"] is True
    await api.advance_all()
    assert (await api.version(2))["state"] == "backfilling"
    for _ in range(2):
        assert (await post(api, "2/resume")).json()["paused"] is False
    await api.advance_all()
    assert (await api.version(2))["state"] == "ready"
    actions = [entry["action"] for entry in await api.trail()]
    assert [action for action in actions if action in ("paused", "resumed")] == ["resumed", "paused"]


async def test_a_retired_version_keeps_its_entry_and_nothing_else(api: Edge) -> None:
    await api.ready(**SMALLER)
    for _ in range(2):
        answer = await api.client.delete(f"{PATH}/2", params={"note": "no use"})
        assert answer.status_code == 200
        gone = valid(answer.json())
        assert (gone["state"], gone["chunks"], gone["indexed"]) == ("retired", 0, False)
        assert (gone["progress"]["done"], gone["progress"]["total"]) == (0, 0)
        assert gone["fingerprint"]
    assert await api.version(2) == gone
    assert [one["state"] for one in (await api.get(PATH))["versions"]] == ["active", "retired"]
    (newest, *_) = await api.trail()
    assert (newest["action"], newest["version"], newest["note"]) == ("retired", 2, "no use")
    for verb in ("promote", "pause", "resume"):
        assert_problem(await post(api, f"2/{verb}"), 409)
    assert (await api.register(**SMALLER))["number"] == 3


async def test_a_version_retired_while_it_is_described_is_described_as_retired(
    api: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.ready(**SMALLER)
    status = api.store.versions.status

    async def too_late(version: EmbedderVersion) -> Any:
        if version.number == 2:
            await api.service.state_machine.retire(
                (await api.store.collections.all())[0], version.number, actor="tests", now=version.created_at
            )
        return await status(version)

    monkeypatch.setattr(api.store.versions, "status", too_late)
    assert (await api.version(2))["state"] == "retired"


async def test_a_pinned_search_answers_in_a_version_that_is_not_active(api: Edge) -> None:
    await api.ready(**SMALLER)
    found = await api.search("cancel a task", embedder_version=2)
    assert (found["embedder_version"], found["hits"][0]["id"], found["degraded"]) == (2, "a", [])


async def test_a_retired_version_is_noticed_though_another_process_retired_it(api: Edge) -> None:
    await api.ready(**SMALLER)
    await api.search("cancel", embedder_version=2)
    (collection,) = await api.store.collections.all()
    version = await api.store.versions.get(collection.id, (await api.store.versions.of(collection.id))[1].number)
    await api.service.state_machine.retire(collection, version.number, actor="elsewhere", now=version.created_at)
    await api.refused(SEARCH, {"query": "x", "embedder_version": 2}, 409)


@pytest.mark.parametrize("verb", ["promote", "pause", "resume"])
async def test_a_version_or_collection_that_is_not_there_is_a_404(api: Edge, verb: str) -> None:
    for url in (f"{PATH}/9", "/v1/collections/nothing/versions/1"):
        assert_problem(await api.client.post(f"{url}/{verb}"), 404)
        assert_problem(await api.client.delete(url), 404)
    for url in ("/v1/collections/nothing/versions", "/v1/collections/nothing/versions/rollback"):
        assert_problem(await api.client.post(url, json={}), 404)


async def test_with_keys_the_trail_names_the_key_by_its_digest() -> None:
    async with edge(api_keys=("correct-horse", "another")) as api:
        api.client.headers["Authorization"] = "Bearer correct-horse"
        await api.collection()
        api.client.headers["Authorization"] = "Bearer another"
        await api.register(**SMALLER)
        entries = await api.trail()
        # sha256 of "another" and of "correct-horse"
        assert [entry["actor"] for entry in entries] == ["key ae448ac8", "key 9dca666e"]
        assert "horse" not in str(entries)


async def test_the_trail_comes_page_by_page_newest_first(api: Edge) -> None:
    await api.ready(**SMALLER)
    everything = await api.trail()
    assert [entry["action"] for entry in everything] == ["ready", "verifying", "indexing", "registered", "created"]
    assert {entry["actor"] for entry in everything[:3]} == {"azimuth"}
    page = await api.get("/v1/collections/papers/audit", limit=2)
    seen = page["entries"]
    while page["next_cursor"] is not None:
        page = await api.get("/v1/collections/papers/audit", limit=2, cursor=page["next_cursor"])
        seen += page["entries"]
    assert seen == everything


async def test_the_trail_refuses_cursors_of_other_listings(api: Edge) -> None:
    cursor = (await api.get("/v1/collections/papers/documents", limit=1))["next_cursor"]
    for made_up in (cursor, "abc"):
        answer = await api.client.get("/v1/collections/papers/audit", params={"cursor": made_up})
        assert_problem(answer, 422, "cursor")


async def test_changed_settings_are_on_the_trail(api: Edge) -> None:
    await api.client.put("/v1/collections/papers", json={"recall_target": 0.9})
    (newest, *_) = await api.trail()
    assert (newest["action"], newest["actor"]) == ("settings", "client 127.0.0.1")
