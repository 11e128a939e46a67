"""Suggestions over HTTP; what is suggested, is in the tests of the lexicon."""

from typing import Any

import pytest

from tests.edge import Edge, api_fixture, assert_problem

api = api_fixture()
URL = "/v1/collections/papers/suggest"


async def test_both_ways_complete_the_last_word_under_a_filter(api: Edge) -> None:
    await api.write(
        {"id": "a", "text": "cancel a task", "metadata": {"year": 2020}},
        {"id": "b", "text": "cancel a table", "metadata": {"year": 2021}},
        {"id": "c", "text": "a task"},
    )
    both = [{"text": "a task", "kind": "word", "documents": 2}, {"text": "a table", "kind": "word", "documents": 1}]
    assert await api.get(URL, q="a ta") == await api.post(URL, {"query": "a ta"}) == {"suggestions": both}
    assert (await api.get(URL, q="a ta", k=1))["suggestions"] == both[:1]
    assert (await api.get(URL, q="a ta", filter='{"year": {"$gte": 2021}}'))["suggestions"] == both[1:]
    assert (await api.post(URL, {"query": "a ta", "filter": {"year": {"$gte": 2021}}}))["suggestions"] == both[1:]


async def test_an_empty_collection_has_none(api: Edge) -> None:
    assert await api.get(URL, q="x", filter='{"year": 1}') == {"suggestions": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": 3}, "query"),
        ({"query": "x" * 501}, "query"),
        ({"query": "a", "k": 0}, "k"),
        ({"query": "a", "k": 51}, "k"),
        ({"query": "a", "filter": {"year": {"$newer": 1}}}, "filter.year"),
        ({"query": "a", "size": 3}, "size"),
    ],
)
async def test_what_cannot_be_completed_is_refused(api: Edge, body: Any, field: str) -> None:
    problem = await api.refused(URL, body, 422)
    assert problem["errors"][0]["field"].startswith(field)


@pytest.mark.parametrize(("params", "field"), [({}, "q"), ({"q": ""}, "q"), ({"q": "a", "filter": "year"}, "filter")])
async def test_what_cannot_be_completed_is_refused_in_a_url(api: Edge, params: dict[str, str], field: str) -> None:
    assert assert_problem(await api.client.get(URL, params=params), 422)["errors"][0]["field"] == field
