"""Documents over HTTP: in, out, gone, and set aside."""

import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from service.api.routes import documents as handlers
from service.core.documents import Document
from service.core.ids import DocumentId
from tests.edge import Edge, api_fixture, assert_problem, call_and_leave

PATH = "/v1/collections/papers/documents"
COUNT = "/v1/collections/papers/count"
NDJSON = {"Content-Type": "application/x-ndjson"}


api = api_fixture()


def url_of(name: str) -> str:
    """Every byte of the id is escaped."""
    return f"{PATH}/" + "".join(f"%{byte:02X}" for byte in name.encode())


async def test_a_write_reports_the_status_of_each_document(api: Edge) -> None:
    first = await api.write({"id": "a", "text": "one"}, {"id": "b", "title": "two", "metadata": {"year": 2020}})
    assert first == {
        "results": [{"id": "a", "status": "created", "revision": 1}, {"id": "b", "status": "created", "revision": 1}],
        "created": 2,
        "updated": 0,
        "unchanged": 0,
    }
    second = await api.write({"id": "b", "title": "two", "metadata": {"year": 2021}}, {"id": "a", "text": "one"})
    told = [(one["id"], one["status"], one["revision"]) for one in second["results"]]
    assert told == [("b", "updated", 2), ("a", "unchanged", 1)]


async def test_a_document_comes_back_as_it_was_sent(api: Edge) -> None:
    sent = {
        "id": "café/ü 1%2F?#",
        "title": "Überschrift",
        "text": "Text mit 𝄞 und\ttab",
        "metadata": {"a": [1, 2.5, None, True, {"b": "c"}], "big": 2**63 - 1},
    }
    await api.write(sent)
    url = url_of(str(sent["id"]))
    found = (await api.client.get(url)).json()
    assert {key: found[key] for key in sent} == sent
    assert found["revision"] == 1
    assert datetime.fromisoformat(found["created_at"]).tzinfo is not None
    assert (await api.client.delete(url)).status_code == 204
    assert_problem(await api.client.get(url), 404)


@pytest.mark.parametrize("twin", ["a ", " a", "a/", "/a", "..a", "a..", "a%00", "a\u2028", "https://a"])
async def test_similar_ids_are_not_confused(api: Edge, twin: str) -> None:
    await api.write({"id": "a", "text": "one"}, {"id": twin, "text": "two"})
    url = url_of(twin)
    assert (await api.client.get(url)).json()["id"] == twin
    assert (await api.client.delete(url)).status_code == 204
    assert (await api.get(f"{PATH}/a"))["text"] == "one"


@pytest.mark.parametrize("old", ["..", "../b", "x/../b", "b\n"])
async def test_what_was_stored_under_an_id_that_is_refused_now_can_be_deleted(api: Edge, old: str) -> None:
    await api.write({"id": "b", "text": "another"})
    (collection,) = await api.store.collections.all()
    document = Document(id=DocumentId(old), text="old")
    await api.service.documents.put(collection.id, [document], datetime.now(UTC))
    assert (await api.post(f"{PATH}/delete", {"ids": [old]})) == {"deleted": 1, "missing": []}
    assert [one["id"] for one in (await api.get(PATH))["documents"]] == ["b"]


async def test_wait_answers_when_both_legs_find_the_document(api: Edge) -> None:
    async with api.working():
        answer = await api.client.post(f"{PATH}?wait=true", json={"documents": [{"id": "a", "text": "wait for me"}]})
    assert answer.json()["searchable"] is True
    for mode in ("dense", "lexical"):
        assert [hit["id"] for hit in (await api.search("wait", mode=mode))["hits"]] == ["a"]


async def test_a_stream_is_read_by_line_whatever_its_network_chunks(api: Edge) -> None:
    lines = [json.dumps({"id": f"ü{n}", "text": f"text {n}"}, ensure_ascii=False) for n in range(20)]
    body = "\r\n".join([*lines[:10], "", "   ", *lines[10:]]).encode()

    async def cut() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    answer = await api.client.post(PATH, content=cut(), headers=NDJSON)
    assert answer.json() == {"created": 20, "updated": 0, "unchanged": 0, "errors": [], "errors_total": 0}


async def test_a_line_without_end_is_refused_in_constant_memory(api: Edge) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"id": "a", "text": "x"}\n{"id": "b", "text": "'
        for _ in range(1_000):
            yield b"x" * 1_000
        yield b'"}\n{"id": "c", "text": "y"}'

    answer = await api.client.post(PATH, content=endless(), headers=NDJSON)
    assert answer.json()["created"] == 2
    assert answer.json()["errors"] == [{"line": 2, "error": "longer than 2000 bytes"}]


async def test_a_stream_may_be_longer_than_a_body(api: Edge) -> None:
    lines = (json.dumps({"id": str(n), "text": "x" * 900}).encode() + b"\n" for n in range(400))
    answer = await api.client.post(PATH, content=b"".join(lines), headers=NDJSON)
    assert answer.json()["created"] == 400


async def test_a_long_stream_is_waited_for_window_by_window(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "WAIT_WINDOW", 600)
    lines = (json.dumps({"id": str(n), "text": f"text {n}"}).encode() + b"\n" for n in range(1_500))
    async with api.working():
        answer = await api.client.post(f"{PATH}?wait=true", content=b"".join(lines), headers=NDJSON)
    assert (answer.json()["created"], answer.json()["searchable"]) == (1_500, True)
    assert not api.store.jobs


async def test_the_last_line_of_an_id_wins(api: Edge) -> None:
    body = b'{"id": "a", "text": "first"}\n{"id": "a", "text": "second"}\n'
    answer = await api.client.post(PATH, content=body, headers=NDJSON)
    assert (answer.json()["created"], answer.json()["updated"]) == (1, 1)
    assert (await api.get(f"{PATH}/a"))["text"] == "second"


async def test_pages_cover_everything_once_in_order(api: Edge) -> None:
    names = ["Z", "a", "b", "é", "z"]
    await api.write(*({"id": name, "text": "x"} for name in names))
    seen, url = [], f"{PATH}?limit=2"
    while url:
        page = await api.get(url)
        seen += [one["id"] for one in page["documents"]]
        url = page["next_cursor"] and f"{PATH}?limit=2&cursor={page['next_cursor']}"
    assert seen == sorted(names, key=str.encode)


async def test_a_full_last_page_has_no_next(api: Edge) -> None:
    await api.write({"id": "a", "text": "x"}, {"id": "b", "text": "x"})
    assert (await api.get(f"{PATH}?limit=2"))["next_cursor"] is None


async def test_an_altered_or_foreign_cursor_is_refused(api: Edge) -> None:
    await api.collection("other")
    await api.write({"id": "a", "text": "x"}, {"id": "b", "text": "x"})
    cursor = (await api.get(f"{PATH}?limit=1"))["next_cursor"]
    for tampered in (cursor[:-1], cursor + "A", cursor.swapcase(), "A" + cursor[1:]):
        assert_problem(await api.client.get(PATH, params={"cursor": tampered}), 422, "cursor")
    assert_problem(await api.client.get("/v1/collections/other/documents", params={"cursor": cursor}), 422, "cursor")


async def test_deleting_by_id_reports_missing_documents(api: Edge) -> None:
    await api.write({"id": "a", "text": "x"}, {"id": "b", "text": "x"})
    answer = await api.client.post(f"{PATH}/delete", json={"ids": ["b", "nothing", "b"]})
    assert answer.json() == {"deleted": 1, "missing": ["nothing"]}
    assert (await api.client.post(f"{PATH}/delete", json={"ids": []})).json() == {"deleted": 0, "missing": []}


async def test_failed_documents_are_listed_and_can_be_retried(api: Edge) -> None:
    await api.post(PATH, {"documents": [{"id": name, "text": name} for name in ("good", "poison", "worse")]})
    (version,) = await api.service.versions.written()
    now = datetime.now(UTC)
    claimed = await api.queue.claim([version], 10, "tests", now, timedelta(seconds=60))
    bad = [one.job for one in claimed if one.job.document_id != "good"]
    await api.queue.record_failure(bad, "not a number", 1, now, now)

    first = await api.get(f"{PATH}/failed?limit=1")
    (poison,) = first["documents"]
    assert (poison["id"], poison["reason"], poison["attempts"]) == ("poison", "not a number", 1)
    rest = await api.get(f"{PATH}/failed?cursor={first['next_cursor']}")
    assert [one["id"] for one in rest["documents"]] == ["worse"]
    assert rest["next_cursor"] is None

    assert (await api.client.post(f"{PATH}/failed/retry")).json() == {"retried": 2}
    assert (await api.get(f"{PATH}/failed")) == {"documents": [], "next_cursor": None}


async def test_a_client_that_leaves_in_the_middle_of_a_stream_leaves_what_was_committed(
    api: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (b'{"id": "%d", "text": "x"}\n' % n for n in range(600))
    with caplog.at_level(logging.INFO, logger="service.api"):
        assert await call_and_leave(api.service, PATH, lines, kind="x-ndjson") == []
    (line,) = [vars(record) for record in caplog.records if record.name.startswith("service.api")]
    assert (line["status"], line["levelname"]) == (499, "INFO")
    assert len((await api.get(f"{PATH}?limit=1000"))["documents"]) == 500


async def test_documents_that_exist_are_left_or_refuse_the_request(api: Edge) -> None:
    await api.write({"id": "a", "text": "old"})
    documents = [{"id": "a", "text": "new"}, {"id": "b", "text": "new"}]
    refused = await api.client.post(PATH, params={"if_exists": "fail"}, json={"documents": documents})
    assert "a: a document with this id is there already" in assert_problem(refused, 409)["detail"]
    lines = "\n".join(map(json.dumps, documents))
    stream = await api.client.post(PATH, params={"if_exists": "fail"}, content=lines, headers=NDJSON)
    assert (stream.json()["created"], [one["line"] for one in stream.json()["errors"]]) == (1, [1])
    skipped = await api.post(PATH, {"documents": documents}, if_exists="skip")
    assert (skipped["created"], skipped["unchanged"]) == (0, 2)
    assert (await api.get(f"{PATH}/a"))["text"] == "old"


async def test_ids_are_made_where_that_is_asked_for(api: Edge) -> None:
    assert_problem(await api.client.post(PATH, json={"documents": [{"text": "a"}]}), 422, "documents.0.id")
    made = await api.post(
        PATH, {"documents": [{"text": "a"}, {"text": "b"}, {"id": "c", "text": "c"}]}, generate_ids=True
    )
    first, second, third = (one["id"] for one in made["results"])
    assert len({first, second, "c"}) == 3
    assert third == "c"
    assert (await api.get(f"{PATH}/{second}"))["text"] == "b"
    stream = await api.client.post(PATH, params={"generate_ids": True}, content='{"text": "d"}', headers=NDJSON)
    assert stream.json()["created"] == 1


async def test_what_was_read_can_be_written_again(api: Edge) -> None:
    await api.write({"id": "a", "title": "A", "text": "one", "metadata": {"x": [1]}}, {"id": "b", "text": "two"})
    listed = await api.get(PATH)
    again = await api.post(PATH, {"documents": listed["documents"]})
    assert again["unchanged"] == 2


async def test_documents_by_id_in_their_order_with_the_parts_that_are_asked_for(api: Edge) -> None:
    await api.write({"id": "a", "text": "one", "metadata": {"x": 1}}, {"id": "b", "text": "two"})
    found = await api.post(f"{PATH}/fetch", {"ids": ["b", "nobody", "a", "b"], "include": ["metadata"]})
    assert [(one["id"], one["metadata"]) for one in found["documents"]] == [("b", {}), ("a", {"x": 1})]
    assert found["missing"] == ["nobody"]
    assert "text" not in found["documents"][0]
    listed = await api.get(PATH, include="text")
    assert [sorted(one.keys() & {"text", "metadata"}) for one in listed["documents"]] == [["text"], ["text"]]


async def test_documents_are_counted(api: Edge) -> None:
    await api.write(*({"id": str(number), "text": "x", "metadata": {"even": number % 2 == 0}} for number in range(5)))
    assert await api.post(COUNT, {"filter": {"even": True}}) == {"count": 3}
    assert await api.post(COUNT) == {"count": 5}


@pytest.mark.parametrize("kind", ["application/json", "application/merge-patch+json"])
async def test_a_merge_patch_changes_parts_of_a_document(api: Edge, kind: str) -> None:
    await api.write({"id": "a", "title": "A", "text": "one", "metadata": {"x": 1, "deep": {"y": 2, "z": 3}}})

    async def patch(body: object, name: str = "a") -> httpx.Response:
        return await api.client.patch(f"{PATH}/{name}", content=json.dumps(body), headers={"Content-Type": kind})

    changed = await patch({"title": None, "metadata": {"x": None, "deep": {"y": [4]}}})
    assert changed.json() == {"id": "a", "status": "updated", "revision": 2}
    found = await api.get(f"{PATH}/a")
    assert (found["title"], found["text"], found["metadata"]) == ("", "one", {"deep": {"y": [4], "z": 3}})
    assert (await patch({})).json()["status"] == "unchanged"
    assert_problem(await patch({"text": ""}), 422, "text")
    assert_problem(await patch({"metadata": {"$x": 1}}), 422)
    assert_problem(await patch({"id": "b"}), 422, "id")
    assert_problem(await patch({"text": "x"}, "nobody"), 404)


async def test_all_documents_are_deleted_if_that_is_confirmed(api: Edge) -> None:
    await api.write({"id": "a", "text": "one"}, {"id": "b", "text": "two"})
    assert_problem(await api.client.post(f"{PATH}/delete", json={"all": True}), 428)
    assert_problem(await api.client.post(f"{PATH}/delete", json={"all": False}, params={"confirm": "papers"}), 422)
    assert await api.post(f"{PATH}/delete", {"all": True}, confirm="papers") == {"deleted": 2}
    assert await api.post(COUNT) == {"count": 0}


async def test_writes_answer_with_a_revision_that_searches_take(api: Edge) -> None:
    body = {"documents": [{"id": "revised", "text": "a revised text"}]}
    answers = [
        await api.client.post(PATH, json=body),
        await api.client.patch(f"{PATH}/revised", json={"title": "t"}),
        await api.client.delete(f"{PATH}/revised"),
    ]
    revisions = [answer.headers["x-azimuth-revision"] for answer in answers]
    assert sorted(map(int, revisions)) == [*map(int, revisions)]
    for path in ("search", "similar/other"):
        own = {"query": "text"} if path == "search" else {}
        for revision in (revisions[-1], int(revisions[-1]), None):
            answer = await api.client.post(f"/v1/collections/papers/{path}", json={**own, "min_revision": revision})
            assert answer.status_code in {200, 404}, answer.text
            assert "x-azimuth-revision" not in answer.headers
        wrongs: list[object] = ["", "-1", "x", "9" * 30, -1, 2**63, 1.5, True, []]
        for wrong in wrongs:
            answer = await api.client.post(f"/v1/collections/papers/{path}", json={**own, "min_revision": wrong})
            assert_problem(answer, 422, "min_revision")
        answer = await api.client.post(
            f"/v1/collections/papers/{path}", json=own, headers={"X-Azimuth-Min-Revision": "x"}
        )
        assert_problem(answer, 422, "X-Azimuth-Min-Revision")
