"""Wishes, typos, highlights with their places, and languages over HTTP."""

import itertools
from typing import Any
from unittest.mock import AsyncMock

import pytest

from service.core.errors import LexiconUnavailable
from tests.edge import Edge, api_fixture
from tests.fakes import FakeLexicon

POND = (
    {"id": "a", "text": "🙂 the grey heron of the pond"},
    {"id": "b", "text": "a heron, grey with age, at a pond"},
    {"id": "c", "title": "heron and pike", "text": "heron and pike"},
)
PATH = "/v1/collections/papers/search"


api = api_fixture(*POND)


def ids(answer: Any) -> set[str]:
    return {hit["id"] for hit in answer["hits"]}


@pytest.mark.parametrize("mode", ["hybrid", "lexical", "dense"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('heron "grey heron"', {"a"}),
        ("heron +pond", {"a", "b"}),
        ("heron -pike", {"a", "b"}),
        ("heron +pond -age", {"a"}),
        ("heron +unheard", set()),
    ],
)
async def test_wishes_bind_whichever_leg_found_it(api: Edge, mode: str, query: str, expected: set[str]) -> None:
    assert ids(await api.search(query, mode=mode)) == expected
    assert ids(await api.search(query, mode=mode, exact=True)) == expected


async def test_the_plan_shows_how_a_query_was_read(api: Edge) -> None:
    answer = await api.search('heron "grey heron" "never heard of" +pond -pike')
    assert answer["plan"]["wishes"] == {
        "phrases": ["grey heron"],
        "required": ["pond"],
        "excluded": ["pike"],
        "unsaid": ["never heard of"],
        "as_words": [],
    }
    assert answer["degraded"] == []
    assert (await api.search("heron pond"))["plan"]["wishes"] is None


@pytest.mark.parametrize("mode", ["hybrid", "lexical", "dense"])
@pytest.mark.parametrize(
    ("query", "given_up"),
    [("herons heron -grey -pike", "-grey, -pike"), ('"grey heron" "with age"', "grey heron, with age")],
)
async def test_what_leaves_nothing_is_given_up_visibly(api: Edge, mode: str, query: str, given_up: str) -> None:
    answer = await api.search(query, mode=mode)
    assert ids(answer) == {"a", "b", "c"}
    assert [one["stage"] for one in answer["degraded"]] == ["wishes"]
    assert given_up in answer["degraded"][0]["reason"]
    assert len(answer["plan"]["wishes"]["as_words"]) == given_up.count(",") + 1


async def test_what_is_required_and_missing_leaves_nothing_and_the_answer_says_so(api: Edge) -> None:
    answer = await api.search("heron +unheard")
    assert answer["hits"] == []
    assert "unheard" in answer["degraded"][0]["reason"]


async def test_a_term_that_is_required_and_excluded_is_a_word(api: Edge) -> None:
    answer = await api.search("grey +pond -pond")
    assert ids(answer) == {"a", "b", "c"}
    assert "+pond" in answer["degraded"][0]["reason"]


async def test_what_documents_write_with_a_hyphen_excludes_nothing(api: Edge) -> None:
    await api.fill([{"id": "d", "text": "heron --pike and heron -pike start the catch"}])
    for query in ("heron -pike", "what does heron -pike do"):
        answer = await api.search(query)
        assert "d" in ids(answer)
        assert answer["plan"]["wishes"]["as_words"] == ["-pike"]


async def test_a_sign_never_empties_an_answer_in_silence(api: Edge) -> None:
    words = ["heron", "grey", "pike", "pond", "unheard", "-and", '"with age"', '-"grey heron"', "+pond", "-heron"]
    for query in itertools.permutations(words, 3):
        answer = await api.search(" ".join(query))
        assert answer["hits"] or answer["degraded"], query


async def test_plain_queries_have_no_wishes(api: Edge) -> None:
    answer = await api.search('+pond -pike "grey heron"', syntax="plain")
    assert ids(answer) == {"a", "b", "c"}
    assert answer["plan"]["wishes"] is None


async def test_wishes_of_several_queries_bind_all_of_the_answer(api: Edge) -> None:
    answer = await api.client.post(PATH, json={"queries": ["heron -pike", "heron +pond"]})
    assert ids(answer.json()) == {"a", "b"}


async def test_without_a_lexical_index_wishes_are_not_kept_and_the_answer_says_so(
    api: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("search", "unmatched_terms", "matching_constraints", "highlight"):
        monkeypatch.setattr(FakeLexicon, method, AsyncMock(side_effect=LexiconUnavailable("being built")))
    answer = await api.search("heron -pike")
    assert {one["stage"] for one in answer["degraded"]} >= {"lexical", "wishes"}
    await api.refused(PATH, {"query": "heron -pike", "mode": "dense"}, 503)


async def test_highlights_say_where_they_are_in_the_document(api: Edge) -> None:
    found = {hit["id"]: hit for hit in (await api.search("heron"))["hits"]}
    texts = {document["id"]: document["text"] for document in POND}
    assert found["a"]["highlight_offsets"] == [[11, 16]]
    for name, hit in found.items():
        assert [texts[name][start:end] for start, end in hit["highlight_offsets"]] == ["heron"]
    assert "highlight_offsets" not in (await api.search("heron", include=["text"]))["hits"][0]


@pytest.mark.parametrize("typos", [False, True, {}, {"max_edits": 1}, {"max_edits": 2}])
async def test_typos_may_be_asked_for(api: Edge, typos: Any) -> None:
    assert ids(await api.search("heron", typos=typos)) == {"a", "b", "c"}


async def test_a_collection_says_whether_its_words_are_ready(api: Edge) -> None:
    assert (await api.get("/v1/collections/papers"))["lexical_state"] == "ready"
