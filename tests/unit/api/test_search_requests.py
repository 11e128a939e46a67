"""Ways to ask over HTTP: like examples, similar to a document, several queries, diverse hits, many searches at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast
from unittest.mock import AsyncMock

import numpy as np
import pytest
from pydantic import TypeAdapter

from service.api.schemas import search_request, search_response
from service.core.collections import EmbedderSpec
from service.core.errors import Overloaded
from service.core.ids import CollectionName, Role, Vectors
from tests.edge import Edge, Json, WordReranker, assert_problem, edge
from tests.edge import hit_ids as ids

PATH = "/v1/collections/papers/search"
SIMILAR = "/v1/collections/papers/similar"
TEXTS = {
    "cat": "a cat is a small animal that purrs",
    "kitten": "a kitten is a small cat that purrs and plays",
    "dog": "a dog is an animal that barks at the cat",
    "car": "a car is a machine with four wheels",
    "truck": "a truck is a machine with many wheels",
    "a/b c": "a boat is a machine that swims",
}
ANSWER = TypeAdapter(search_response.SearchAnswer)


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    async with edge(reranker=WordReranker()) as running:
        await running.collection()
        for name, text in TEXTS.items():
            await running.write({"id": name, "text": text, "metadata": {"wheels": "wheels" in text}})
        # The first search proves the model, by texts of its own.
        await running.client.post(f"{PATH}/batch", json={"searches": [{"query": "first"}]})
        yield running


async def run_search(api: Edge, **body: Any) -> Json:
    found = await api.post(PATH, body)
    ANSWER.validate_python(found)
    return found


async def vector_of(api: Edge, text: str, role: Role = "document") -> list[float]:
    (vector,) = await api.service.embedders.embed(EmbedderSpec(model="hashing:32"), [text], role)
    return cast(list[float], vector.tolist())


async def test_hits_are_like_the_examples_which_are_left_out(api: Edge) -> None:
    answer = await run_search(api, like={"positive": ["cat"]}, k=5)
    assert answer["plan"]["mode"] == "dense"
    assert ids(answer)[0] == "kitten"
    assert "cat" not in ids(answer)
    assert len(ids(answer)) == 5, "an example takes nobody's place"
    assert not answer["plan"]["underfilled"]
    assert all("highlights" not in hit for hit in answer["hits"])


async def test_an_example_may_be_an_id_a_text_or_a_vector(api: Edge) -> None:
    by_id = await run_search(api, like={"positive": [{"id": "cat"}]}, k=3)
    by_text = await run_search(api, like={"positive": [{"text": "\n" + TEXTS["cat"]}]}, k=4)
    vector = await vector_of(api, "\n" + TEXTS["cat"])
    by_vector = await run_search(api, like={"positive": [{"vector": vector}]}, k=4, embedder_version=1)
    assert ids(by_text) == ids(by_vector) == ["cat", *ids(by_id)]


async def test_negative_examples_push_away(api: Edge) -> None:
    both = await run_search(api, like={"positive": ["car"], "negative": [{"text": "truck with many wheels"}]})
    one = await run_search(api, like={"positive": ["car"]})
    assert ids(both).index("truck") > ids(one).index("truck") == 0


async def test_like_keeps_to_filter_grouping_and_diversity(api: Edge) -> None:
    answer = await run_search(
        api,
        like={"positive": ["car"]},
        filter={"wheels": True},
        group_by="chunk",
        diversity=0.5,
        exact=True,
        embedder_version=1,
        explain=True,
    )
    assert ids(answer) == ["truck"]
    assert answer["plan"]["underfilled"] is False
    assert answer["hits"][0]["explain"]["lexical"] is None


@pytest.mark.parametrize(
    ("like", "field", "word"),
    [
        ({"positive": ["nobody"]}, "like.positive.0", "no document 'nobody'"),
        ({"positive": ["cat"], "negative": ["dog", "nobody"]}, "like.negative.1", "no document"),
        ({"positive": [{"text": "x"}, {"vector": [1.0] * 31}]}, "like.positive.1.vector", "31 numbers"),
        ({"positive": [{"vector": [0.0] * 32}]}, "like.positive.0.vector", "no direction"),
        ({"positive": [{"vector": [1.0] * 32}, {"vector": [-1.0] * 32}]}, "like", "cancel"),
        ({"positive": []}, "like.positive", "at least 1"),
        ({"positive": ["cat"] * (search_request.MAX_EXAMPLES + 1)}, "like.positive", "at most"),
        ({"positive": [{}]}, "like.positive.0", "exactly one of id, text, vector"),
        ({"positive": [{"id": "cat", "text": "x"}]}, "like.positive.0", "exactly one of id, text, vector"),
        ({"positive": [3]}, "like.positive.0", "object"),
        ({"positive": [""]}, "like.positive.0.id", "at least 1"),
        ({"positive": ["cat"], "neutral": []}, "like.neutral", "unknown"),
    ],
)
async def test_invalid_examples_are_refused_by_their_place(api: Edge, like: Json, field: str, word: str) -> None:
    problem = await api.refused(PATH, {"like": like, "embedder_version": 1}, 422, field)
    assert word in problem["detail"]


async def test_an_example_that_is_not_encoded_as_it_is_now_says_so(api: Edge) -> None:
    for changed in ({"id": "new", "text": "never encoded"}, {"id": "cat", "text": "changed since"}):
        await api.client.post("/v1/collections/papers/documents", json={"documents": [changed]})
        answer = await api.client.post(PATH, json={"like": {"positive": ["dog", changed["id"]]}})
        assert "version 1 has no vector yet" in assert_problem(answer, 422, "like.positive.1")["detail"]


async def test_vectors_of_examples_must_say_which_space_they_are_of(api: Edge) -> None:
    await api.refused(PATH, {"like": {"positive": [{"vector": [1.0] * 32}]}}, 422, "embedder_version")


async def test_of_an_external_version_examples_are_ids_and_vectors() -> None:
    async with edge() as api:
        await api.collection(embedder={"model": "external", "dimensions": 3, "identity": "theirs"})
        rows = {"x": [1, 0, 0], "xy": [1, 1, 0], "y": [0, 1, 0], "z": [0, 0, 1]}
        await api.write(*({"id": name, "text": name, "vector": list(map(float, row))} for name, row in rows.items()))
        assert ids(await run_search(api, like={"positive": ["x"]}, k=2))[0] == "xy"
        near_y = {"positive": ["xy", {"vector": [0.0, 1.0, 0.0]}], "negative": ["x"]}
        assert ids(await run_search(api, like=near_y))[0] == "y"
        assert ids((await api.client.post(f"{SIMILAR}/x", json={"k": 1})).json()) == ["xy"]
        refused = await api.client.post(PATH, json={"like": {"positive": ["x", {"text": "words"}]}})
        assert_problem(refused, 422, "like.positive.1.text")


async def test_a_text_example_that_is_too_long_is_not_cut_silently(api: Edge) -> None:
    answer = await run_search(api, like={"positive": [{"text": "cat " * 2_000}]})
    (cut,) = answer["degraded"]
    assert "like.positive.0.text" in cut["reason"]


async def test_similar_is_like_one_document(api: Edge) -> None:
    like = await run_search(api, like={"positive": ["cat"]}, k=3)
    for body in (None, {}, {"k": 10}):
        answer = await api.client.post(f"{SIMILAR}/cat", json=body)
        assert answer.status_code == 200, answer.text
        ANSWER.validate_python(answer.json())
        assert ids(answer.json())[:3] == ids(like)
        assert "total" in answer.headers["server-timing"]
    no_body = await api.client.post(f"{SIMILAR}/cat")
    assert ids(no_body.json())[:3] == ids(like)


async def test_similar_takes_what_an_answer_may_be_like(api: Edge) -> None:
    body = {
        "k": 1,
        "filter": {"wheels": True},
        "include": ["vector"],
        "explain": True,
        "group_by": "chunk",
        "diversity": 0.3,
        "embedder_version": 1,
    }
    answer = await api.client.post(f"{SIMILAR}/a%2Fb%20c", json=body)
    (hit,) = answer.json()["hits"]
    assert hit["id"] in {"car", "truck"}
    assert len(hit["vector"]) == 32
    assert hit["explain"]["diversity"]["rank"] == 1


async def test_similar_to_what_is_not_there(api: Edge) -> None:
    assert_problem(await api.client.post(f"{SIMILAR}/nobody"), 404)
    assert_problem(await api.client.post("/v1/collections/nowhere/similar/cat"), 404)
    await api.client.post("/v1/collections/papers/documents", json={"documents": [{"id": "new", "text": "x"}]})
    problem = assert_problem(await api.client.post(f"{SIMILAR}/new"), 422, "id")
    assert "no vector yet" in problem["detail"]
    await api.refused(f"{SIMILAR}/cat", {"query": "x"}, 422, "query")


async def test_several_queries_are_fused_and_explained_one_by_one(api: Edge) -> None:
    queries = ["small cat", {"query": "machine with wheels", "weight": 3}]
    answer = await run_search(api, queries=queries, explain=True)
    assert set(ids(answer)[:2]) == {"car", "truck"}
    assert answer["plan"]["mode"] == "hybrid"
    for hit in answer["hits"]:
        explained = hit["explain"]
        gains = [one["gain"] for one in explained["queries"]]
        assert len(gains) == 2
        assert hit["score"] == pytest.approx(sum(gains))
        most = explained["queries"][int(np.argmax(gains))]
        assert (explained["dense"], explained["lexical"]) == (most["dense"], most["lexical"])
        assert all(one["dense"] is not None for one in explained["queries"]), "what another query found is looked up"
    assert "<mark>wheels</mark>" in answer["hits"][0]["highlights"]


async def test_one_query_among_several_that_are_the_same_answers_as_alone(api: Edge) -> None:
    alone = await run_search(api, query="small cat")
    thrice = await run_search(api, queries=["small cat", {"query": "small cat", "weight": 7}, {"query": "small cat"}])
    assert ids(thrice) == ids(alone)
    assert [hit["score"] for hit in thrice["hits"]] == pytest.approx([hit["score"] for hit in alone["hits"]])


async def test_queries_may_bring_vectors(api: Edge) -> None:
    vector = await vector_of(api, "machine with wheels", "query")
    only = await run_search(api, queries=[{"vector": vector}, {"vector": vector, "weight": 2}], embedder_version=1)
    assert only["plan"]["mode"] == "dense"
    assert set(ids(only)[:2]) == {"car", "truck"}
    mixed = await run_search(api, queries=["cat", {"vector": vector, "weight": 9}], embedder_version=1, explain=True)
    assert mixed["plan"]["mode"] == "hybrid"
    assert set(ids(mixed)[:2]) == {"car", "truck"}
    assert all(hit["explain"]["queries"][1]["lexical"] is None for hit in mixed["hits"])


async def test_of_several_queries_each_passage_is_read_with_the_one_that_counts_most(api: Edge) -> None:
    pairs: list[tuple[str, str]] = []

    class Noting(WordReranker):
        async def read(self, query: str, passages: Sequence[str]) -> Any:
            pairs.extend((query, passage) for passage in passages)
            return await super().read(query, passages)

    async with edge(reranker=Noting()) as api:
        await api.collection()
        await api.write(*({"id": name, "text": text} for name, text in list(TEXTS.items())[:4]))
        answer = await run_search(api, queries=["small cat purrs", "machine with four wheels"], rerank=True)
        assert answer["plan"]["reranked"]
        assert len(pairs) == len(set(pairs)) == 4, "no passage is read more than once"
        assert ("machine with four wheels", TEXTS["car"]) in pairs
        assert ("small cat purrs", TEXTS["kitten"]) in pairs


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"queries": ["one"]}, "queries"),
        ({"queries": ["x"] * (search_request.MAX_QUERIES + 1)}, "queries"),
        ({"queries": ["x", " "]}, "queries.1.query"),
        ({"queries": ["x", {}]}, "queries.1"),
        ({"queries": ["x", {"query": "y", "weight": 0}]}, "queries.1.weight"),
        ({"queries": ["x", {"query": "y", "weight": search_request.MAX_WEIGHT + 1}]}, "queries.1.weight"),
        ({"queries": ["x", {"query": "y", "weight": "1"}]}, "queries.1.weight"),
        ({"queries": ["x", {"vector": [1.0]}], "embedder_version": 1}, "queries.1.vector"),
        ({"queries": ["x", {"vector": [1.0] * 32}]}, "embedder_version"),
        ({"queries": ["x", "y"], "query": "z"}, "queries"),
        ({"queries": ["x", "y"], "vector": [1.0]}, "queries"),
        ({"queries": ["x", {"vector": [1.0] * 32}], "mode": "lexical"}, "queries.1.query"),
        ({"queries": [{"vector": [1.0] * 32}] * 2, "mode": "hybrid"}, "queries.0.query"),
        ({"queries": [{"vector": [1.0] * 32}] * 2, "rerank": True}, "queries.0.query"),
        ({"like": {"positive": ["cat"]}, "query": "x"}, "like"),
        ({"like": {"positive": ["cat"]}, "queries": ["x", "y"]}, "like"),
        ({"like": {"positive": ["cat"]}, "mode": "hybrid"}, "mode"),
        ({"like": {"positive": ["cat"]}, "mode": "lexical"}, "mode"),
        ({"like": {"positive": ["cat"]}, "rerank": True}, "rerank"),
        ({"query": "x", "diversity": -0.1}, "diversity"),
        ({"query": "x", "group_by": "chunk", "mode": "lexical"}, "group_by"),
        ({"k": 3}, "query"),
    ],
)
async def test_contradicting_fields_are_refused(api: Edge, body: Json, field: str) -> None:
    await api.refused(PATH, body, 422, field)
    batch = await api.client.post(f"{PATH}/batch", json={"searches": [{"query": "x"}, body]})
    assert_problem(batch, 422, f"searches.1.{field}")


async def test_diverse_hits_keep_their_scores_and_say_why_they_stand_where_they_do(api: Edge) -> None:
    plain = await run_search(api, query="a small cat that purrs", k=6)
    same = await run_search(api, query="a small cat that purrs", k=6, diversity=0)
    assert ids(same) == ids(plain)
    diverse = await run_search(api, query="a small cat that purrs", k=3, diversity=0.9, explain=True)
    scores = {hit["id"]: hit["score"] for hit in plain["hits"]}
    assert ids(diverse)[0] == ids(plain)[0]
    assert ids(diverse) != ids(plain)[:3]
    assert {hit["id"]: hit["score"] for hit in diverse["hits"]} == {id_: scores[id_] for id_ in ids(diverse)}
    for place, hit in enumerate(diverse["hits"]):
        why = hit["explain"]["diversity"]
        assert ids(plain)[why["rank"] - 1] == hit["id"]
        assert (why["similarity"] is None) == (place == 0)
    assert "diversify" in diverse["timings_ms"]


Embed = Callable[[EmbedderSpec, Sequence[str], Role], Awaitable[Vectors]]
Patched = Callable[[Embed], None]
Calls = list[tuple[Role, list[str]]]


@pytest.fixture
def embed_as(api: Edge, monkeypatch: pytest.MonkeyPatch) -> Patched:
    """Puts something in the place of encoding."""
    return partial(monkeypatch.setattr, api.service.embedders, "embed")


@pytest.fixture
def calls(api: Edge, embed_as: Patched) -> Calls:
    """What the embedder is asked to encode, call by call."""
    seen: Calls = []
    encode = api.service.embedders.embed

    async def embed(spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        seen.append((role, list(texts)))
        return await encode(spec, texts, role)

    embed_as(embed)
    return seen


async def test_a_batch_is_encoded_in_one_call(api: Edge, calls: Calls) -> None:
    searches: list[Json] = [{"query": f"machine number {at % 20}"} for at in range(60)]
    searches += [{"queries": ["cat", "machine number 3", "dog"]}, {"query": "only words", "mode": "lexical"}]
    searches += [{"query": "cat", "mode": "dense", "embedder_version": 1}]
    answer = await api.post(f"{PATH}/batch", {"searches": searches})
    ((role, texts),) = calls
    assert role == "query"
    assert sorted(texts) == sorted({*(f"machine number {at}" for at in range(20)), "cat", "dog"})
    alone = await run_search(api, query="machine number 7")
    assert answer["results"][7]["hits"] == alone["hits"]


async def test_examples_are_encoded_together_too_and_as_documents(api: Edge, calls: Calls) -> None:
    like = [{"like": {"positive": [{"text": f"text {at % 3}"}], "negative": [{"text": "no"}]}} for at in range(9)]
    await api.post(f"{PATH}/batch", {"searches": [*like, {"query": "text 1"}]})
    assert sorted(calls) == [("document", ["text 0", "no", "text 1", "text 2"]), ("query", ["text 1"])]


async def test_each_version_encodes_its_own(api: Edge, calls: Calls) -> None:
    await api.ready(embedder={"model": "hashing:48"})
    calls.clear()
    searches: list[Json] = [{"query": f"text {at}", "embedder_version": 1 + at % 2} for at in range(10)]
    answer = await api.client.post(f"{PATH}/batch", json={"searches": [*searches, {"query": "text 99"}]})
    found = answer.json()["results"]
    assert [one["embedder_version"] for one in found] == [1, 2] * 5 + [1]
    assert sorted(len(texts) for role, texts in calls if role == "query") == [5, 6]


async def test_several_queries_are_encoded_in_one_call(api: Edge, calls: Calls) -> None:
    await run_search(api, queries=["one", "two", "three", "two"])
    assert calls == [("query", ["one", "two", "three"])]


async def test_a_failed_encoding_affects_each_search_as_it_would_alone(api: Edge, embed_as: Patched) -> None:
    """A hybrid search does without, and says so; a dense one cannot, and neither can the batch."""

    embed_as(AsyncMock(side_effect=Overloaded("too much waits for the embedder")))
    searches = [{"query": "cat"}, {"query": "cat", "mode": "lexical"}, {"query": "dog", "budget_ms": 60_000}]
    answer = await api.client.post(f"{PATH}/batch", json={"searches": searches})
    stages = [[one["stage"] for one in found["degraded"]] for found in answer.json()["results"]]
    assert stages == [["embed"], [], ["embed"]]
    dense = await api.client.post(f"{PATH}/batch", json={"searches": [*searches, {"query": "x", "mode": "dense"}]})
    assert_problem(dense, 429)


async def test_a_search_with_a_spent_budget_does_not_stop_the_shared_encoding(api: Edge, embed_as: Patched) -> None:
    released, started, encode = asyncio.Event(), [], api.service.embedders.embed

    async def slow(spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        started.append(list(texts))
        await released.wait()
        return await encode(spec, texts, role)

    embed_as(slow)
    searches = [{"query": "cat", "budget_ms": 0.001}, {"query": "dog"}]
    running = asyncio.create_task(api.client.post(f"{PATH}/batch", json={"searches": searches}))
    while not started:
        await asyncio.sleep(0)
    released.set()
    hurried, patient = (await running).json()["results"]
    assert "embed" in [one["stage"] for one in hurried["degraded"]]
    assert patient["degraded"] == []
    assert started == [["cat", "dog"]]


async def test_a_text_that_gives_no_vector_is_named_by_its_place(api: Edge, embed_as: Patched) -> None:
    encode = api.service.embedders.embed

    async def blank(spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        vectors = await encode(spec, texts, role)
        vectors[[text == "nothing" for text in texts]] = 0.0
        return vectors

    embed_as(blank)
    for body, field in (
        ({"query": "nothing"}, "query"),
        ({"queries": ["x", "nothing"]}, "queries.1.query"),
        ({"like": {"positive": ["cat"], "negative": [{"text": "nothing"}]}}, "like.negative.0.text"),
    ):
        await api.refused(PATH, body, 422, field)
        batch = await api.client.post(f"{PATH}/batch", json={"searches": [{"query": "fine"}, body]})
        assert_problem(batch, 422, f"searches.1.{field}")


async def test_only_single_text_queries_are_shadow_traffic(api: Edge) -> None:
    await run_search(api, like={"positive": ["cat"]})
    await run_search(api, queries=["one", "two"])
    await api.client.post(f"{SIMILAR}/cat")
    assert api.service.shadow.recent(CollectionName("papers")) == ()
