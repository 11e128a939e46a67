"""A collection's own test set over HTTP."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from service.api.routes import judgments
from service.core.errors import MAX_PLACES
from service.spaces import sampling
from tests.edge import Edge, Json, api_fixture, assert_problem

PATH = "/v1/collections/papers/judgments"
QUERIES = [{"_id": "q1", "text": "cancel a task"}, {"_id": "q2", "text": "sort a list"}]
ANSWER = TypeAdapter(judgments.JudgmentsAnswer)


api = api_fixture({"id": "a", "text": "cancel a task"}, {"id": "b", "text": "sort a list"})


def judgment_rows(*rows: tuple[str, str, int]) -> list[Json]:
    return [{"query-id": query, "corpus-id": document, "score": score} for query, document, score in rows]


async def upload(api: Edge, queries: Any, qrels: Any) -> Json:
    shown = await api.post(PATH, {"queries": queries, "qrels": qrels})
    ANSWER.validate_python(shown)
    return shown


async def test_judgments_are_counted_and_can_be_downloaded(api: Edge) -> None:
    qrels = judgment_rows(("q1", "a", 2), ("q1", "b", 0), ("q2", "b", 1), ("q2", "gone", 1))
    shown = await upload(api, QUERIES, qrels)
    assert (shown["queries"], shown["judgments"], shown["unknown_documents"]) == (2, 4, 1)
    assert (await api.get(PATH)) == shown
    full = ANSWER.validate_python((await api.client.get(PATH, params={"full": "true"})).json())
    assert full["set"] == {"queries": QUERIES, "qrels": qrels}
    assert (await api.client.post(PATH, json=full["set"])).status_code == 200


async def test_documents_written_since_are_known(api: Edge) -> None:
    assert (await upload(api, QUERIES, judgment_rows(("q1", "late", 1))))["unknown_documents"] == 1
    await api.write({"id": "late", "text": "x"})
    assert (await api.get(PATH))["unknown_documents"] == 0


async def test_queries_for_which_nothing_is_relevant_are_dropped(api: Edge) -> None:
    shown = await upload(api, QUERIES, judgment_rows(("q1", "a", 1), ("q2", "a", 0)))
    assert (shown["queries"], shown["judgments"]) == (1, 1)
    problem = await api.refused(PATH, {"queries": QUERIES, "qrels": judgment_rows(("q1", "a", 0))}, 422, "qrels")
    assert "relevant" in problem["detail"]


async def test_further_columns_of_beir_are_ignored(api: Edge) -> None:
    rows = [{"_id": "q1", "text": "cancel a task", "metadata": {"source": "x"}}]
    assert (await upload(api, rows, judgment_rows(("q1", "a", 1))))["queries"] == 1


async def test_a_collection_without_a_set_says_so(api: Edge) -> None:
    nothing = {"queries": 0, "judgments": 0, "unknown_documents": 0, "uploaded_at": None}
    assert (await api.get(PATH)) == nothing
    assert_problem(await api.client.delete(PATH), 404)
    await upload(api, QUERIES, judgment_rows(("q1", "a", 1)))
    assert (await api.client.delete(PATH, params={"confirm": "papers"})).status_code == 204
    assert (await api.get(PATH)) == nothing


async def test_changes_of_the_set_are_on_the_trail(api: Edge) -> None:
    await upload(api, QUERIES, judgment_rows(("q1", "a", 1), ("q2", "b", 1)))
    await api.client.delete(PATH, params={"confirm": "papers"})
    told = [(one["action"], one["details"]["queries"], one["actor"]) for one in (await api.trail())[:2]]
    assert told == [("judgments", queries, "client 127.0.0.1") for queries in (0, 2)]


async def test_the_first_errors_are_reported_by_row(api: Edge) -> None:
    body = {"queries": QUERIES, "qrels": judgment_rows(("q1", "a", 1), *(("nobody", str(at), 1) for at in range(500)))}
    problem = await api.refused(PATH, body, 422, "qrels.1.query-id")
    assert len(problem["errors"]) == MAX_PLACES
    assert problem["detail"].startswith("500 ")
    assert (await api.get(PATH))["queries"] == 0


async def test_many_documents_are_looked_up_in_batches(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_IDS_AT_ONCE", 3)
    rows = judgment_rows(*(("q1", name, 1) for name in "abcdefg"))
    assert (await upload(api, QUERIES, rows))["unknown_documents"] == 5
