"""Searches over HTTP: the shape of an answer, and what a request may ask."""

from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from pydantic import TypeAdapter

from service.api.schemas import search_response
from service.core import search
from service.core.errors import Invalid, LexiconUnavailable, Overloaded
from service.core.ids import CollectionName
from tests.edge import LIMITS, Edge, WordReranker, api_fixture, assert_problem, edge

PATH = "/v1/collections/papers/search"
ANSWER = TypeAdapter(search_response.SearchAnswer)


api = api_fixture(
    {"id": "wait_for", "title": "asyncio.wait_for", "text": "cancel a task after a timeout <b>", "metadata": {"n": 1}},
    {"id": "sort", "title": "list.sort", "text": "sort a list by key", "metadata": {"n": 2}},
    {"id": "rmtree", "text": "delete a directory tree", "metadata": {"n": 3}},
    reranker=WordReranker(),
)


async def test_an_answer_has_the_shape_of_the_contract(api: Edge) -> None:
    answer = await api.search("cancel a task", explain=True, rerank=True, k=2)
    ANSWER.validate_python(answer)
    assert set(answer) == {"hits", "confidence", "embedder_version", "plan", "degraded", "took_ms", "timings_ms"}
    assert answer["embedder_version"] == 1
    assert answer["plan"] == {
        "mode": "hybrid",
        "dense": "exact",
        "ef_search": None,
        "selectivity": None,
        "underfilled": False,
        "reason": "no_index",
        "reranked": True,
        "rerank": {"read": 3, "excerpts": 0, "skipped": 0, "truncated": 0, "weight": 0.6},
        "wishes": None,
    }
    assert answer["degraded"] == []
    assert set(answer["timings_ms"]) >= {"embed", "dense", "lexical", "fuse", "fetch", "rerank"}
    assert answer["took_ms"] > 0
    first = answer["hits"][0]
    assert len(answer["hits"]) == 2
    assert (first["id"], first["chunk"], first["title"]) == ("wait_for", 0, "asyncio.wait_for")
    assert (first["start"], first["end"], first["revision"]) == (0, 33, 1)
    assert first["text"] == "cancel a task after a timeout <b>"
    assert first["metadata"] == {"n": 1}
    assert "<mark>cancel</mark>" in first["highlights"]
    explained = first["explain"]
    assert explained["dense"]["rank"] == 1
    assert -1 <= explained["dense"]["score"] <= 1
    assert explained["lexical"] == pytest.approx({"rank": 1, "score": 3.0, "normalised": 1.0, "share": 0.5})
    assert explained["rerank"] == {"rank": 1, "score": 1.0, "share": pytest.approx(0.6)}
    assert first["score"] == pytest.approx(0.6 + 0.4)  # the best of the first stage, and of the second


async def test_stages_that_did_not_run_took_no_time(api: Edge) -> None:
    timings = (await api.search("sort", mode="lexical"))["timings_ms"]
    assert (timings["embed"], timings["dense"], timings["rerank"]) == (0.0, 0.0, 0.0)
    assert timings["lexical"] > 0


async def test_the_header_carries_the_stages(api: Edge) -> None:
    answer = await api.client.post(PATH, json={"query": "sort"})
    stages = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert {"embed", "dense", "lexical", "fuse", "fetch", "total"} <= set(stages)
    for stage, ms in answer.json()["timings_ms"].items():
        assert float(stages.get(stage, 0.0)) == pytest.approx(ms, abs=0.001)


@pytest.mark.parametrize(
    ("include", "present"),
    [
        (None, {"text", "metadata", "highlights", "highlight_offsets", "title_highlight"}),
        ([], set()),
        (["text"], {"text"}),
        (["vector", "metadata"], {"vector", "metadata"}),
        (["highlights", "highlights"], {"highlights", "highlight_offsets", "title_highlight"}),
    ],
)
async def test_hits_have_the_included_fields(api: Edge, include: list[str] | None, present: set[str]) -> None:
    asked: dict[str, Any] = {} if include is None else {"include": include}
    for hit in (await api.search("sort", **asked))["hits"]:
        always = {"id", "chunk", "score", "relevance", "cosine", "bm25", "title", "start", "end", "revision"}
        assert set(hit) == always | present
        if "vector" in present:
            assert len(hit["vector"]) == 32


async def test_group_by_document_is_accepted(api: Edge) -> None:
    assert (await api.search("sort", group_by="document"))["hits"]


@pytest.mark.parametrize("rerank", [False, None])
async def test_reranking_is_left_out_unless_asked_for(api: Edge, rerank: bool | None) -> None:
    answer = await api.search("sort", rerank=rerank, explain=True)
    assert answer["plan"]["reranked"] is False
    assert answer["hits"][0]["explain"]["rerank"] is None


async def test_reranking_may_be_asked_for_with_depth_and_weight(api: Edge) -> None:
    answer = await api.search("cancel a task", rerank={"depth": 1, "weight": 1}, explain=True)
    assert [hit["explain"]["rerank"] is not None for hit in answer["hits"]] == [True, False, False]
    assert answer["hits"][0]["score"] == 1.0


async def test_without_a_reranker_the_answer_says_so() -> None:
    async with edge() as api:
        await api.collection()
        await api.write({"id": "a", "text": "x"})
        answer = await api.search("x", rerank=True)
        assert answer["degraded"] == [
            {"stage": "rerank", "code": "not_configured", "reason": "no reranker is configured"}
        ]
        assert answer["plan"]["reranked"] is False


async def test_a_filter_leaves_only_what_passes(api: Edge) -> None:
    answer = await api.search("a", filter={"n": {"$gte": 2}})
    assert {hit["id"] for hit in answer["hits"]} == {"sort", "rmtree"}
    assert answer["plan"]["selectivity"] == pytest.approx(2 / 3)
    assert len((await api.search("a", filter={}))["hits"]) == 3


async def test_fusion_of_a_request_goes_before_that_of_the_collection(api: Edge) -> None:
    answer = await api.search("cancel a task", fusion={"method": "rrf", "k": 1})
    assert answer["hits"][0]["score"] == pytest.approx(1.0)


async def test_a_batch_answers_each_in_its_place(api: Edge) -> None:
    searches = [
        {"query": text, "k": 1, "explain": at % 2 == 0}
        for at, text in enumerate(["sort list", "tree", "cancel a task after"] * 10)
    ]
    found = (await api.post(f"{PATH}/batch", {"searches": searches}))["results"]
    assert [one["hits"][0]["id"] for one in found] == ["sort", "rmtree", "wait_for"] * 10
    assert ["explain" in one["hits"][0] for one in found] == [True, False] * 15


async def test_a_batch_fails_with_the_place_of_what_failed(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    run = api.service.search.run

    async def picky(name: Any, request: search.SearchRequest, *together: Any) -> search.SearchResult:
        if request.text == "bad":
            raise Invalid.at("query", "the embedder gives no usable vector for this text")
        return await run(name, request, *together)

    monkeypatch.setattr(api.service.search, "run", picky)
    searches = [{"query": "sort"}] * 9 + [{"query": "bad"}]
    await api.refused(f"{PATH}/batch", {"searches": searches}, 422, "searches.9.query")


async def test_overload_is_a_429_with_retry_after(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    full = AsyncMock(side_effect=Overloaded("too many searches at once", retry_after=1.4))
    monkeypatch.setattr(api.service.search, "run", full)
    for path, body in ((PATH, {"query": "x"}), (f"{PATH}/batch", {"searches": [{"query": "x"}]})):
        answer = await api.client.post(path, json=body)
        assert assert_problem(answer, 429)["detail"] == "too many searches at once"
        assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize(("default", "sent", "budget"), [(None, None, None), (50.0, None, 50.0), (50.0, 900.0, 900.0)])
async def test_a_search_without_a_budget_has_that_of_the_process(
    default: float | None, sent: float | None, budget: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge(limits=replace(LIMITS, budget_ms=default)) as api:
        await api.collection()
        await api.write({"id": "a", "text": "sort"})
        run = AsyncMock(wraps=api.service.search.run)
        monkeypatch.setattr(api.service.search, "run", run)
        one = {"k": 3} | ({} if sent is None else {"budget_ms": sent})
        await api.post(PATH, {"query": "sort"} | one)
        await api.post(f"{PATH}/batch", {"searches": [{"query": "sort"} | one]})
        await api.post("/v1/collections/papers/similar/a", one)
        assert [call.args[1].budget_ms for call in run.await_args_list] == [budget] * 3


async def test_an_unavailable_index_is_a_503(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.service.search, "run", AsyncMock(side_effect=LexiconUnavailable))
    answer = await api.client.post(PATH, json={"query": "x"})
    assert assert_problem(answer, 503)["type"] == "urn:azimuth:error:lexicon-unavailable"
    assert int(answer.headers["retry-after"]) >= 1


async def test_single_searches_are_the_shadow_traffic(api: Edge) -> None:
    await api.search("sort a list")
    await api.client.post(f"{PATH}/batch", json={"searches": [{"query": "cancel"}]})
    await api.client.post(PATH, json={"query": "refused", "embedder_version": 7})
    await api.search("pinned", embedder_version=1)
    assert [one.text for one in api.service.shadow.recent(CollectionName("papers"))] == ["sort a list"]
