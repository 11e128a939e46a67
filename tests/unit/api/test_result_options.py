"""Pages, thresholds, order and projection of the hits of a search."""

from typing import Any

import pytest

from tests.edge import Edge, Json, WordReranker, api_fixture
from tests.edge import hit_ids as ids

PATH = "/v1/collections/papers"
WORDS = ["apple", "pear", "plum", "fig", "grape", "lemon"]
DOCUMENTS = [
    {
        "id": f"d{at:02}",
        "text": " ".join(WORDS[: 1 + at % 6]) + f" fruit number {at}",
        "metadata": {"n": at, "group": "ab"[at % 2]} | ({"year": 2000 + at // 4} if at % 3 else {}),
    }
    for at in range(24)
]
api = api_fixture(*DOCUMENTS, settings={"indexed": ["year", "group", "n"]}, reranker=WordReranker())


@pytest.mark.parametrize("rerank", [False, {"depth": 12}])
@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize("candidates", [None, 3])
async def test_pages_are_the_parts_of_one_ranking(api: Edge, mode: str, candidates: int | None, rerank: Any) -> None:
    asked: dict[str, Any] = {"mode": mode, "rerank": rerank, "candidates": candidates}
    pages = [await api.search("apple pear fruit", k=5, offset=at, **asked) for at in range(0, 30, 5)]
    first = ids(await api.search("apple pear fruit", k=5, **asked))
    found = [id_ for page in pages for id_ in ids(page)]
    assert found[:5] == first
    assert len(set(found)) == len(found) == 24
    assert not any(page["plan"]["underfilled"] for page in pages)
    if candidates is None and not rerank:
        assert found == ids(await api.search("apple pear fruit", k=24, **asked))


async def test_the_raw_scores_of_a_hit_are_those_of_its_explanation(api: Edge) -> None:
    for hit in (await api.search("apple pear", explain=True, k=24))["hits"]:
        explained = hit["explain"]
        assert hit["cosine"] == (explained["dense"] and explained["dense"]["score"])
        assert hit["bm25"] == (explained["lexical"] and explained["lexical"]["score"])
    assert {hit["bm25"] for hit in (await api.search("apple", mode="dense"))["hits"]} == {None}
    assert {hit["cosine"] for hit in (await api.search("apple", mode="lexical"))["hits"]} == {None}


@pytest.mark.parametrize("name", ["score", "cosine", "bm25"])
async def test_hits_reach_the_least_score(api: Edge, name: str) -> None:
    every = (await api.search("apple pear fig", k=24))["hits"]
    known = sorted(hit[name] for hit in every if hit[name] is not None)
    bound = known[len(known) // 2]
    answer = await api.search("apple pear fig", k=24, min_score=bound if name == "score" else {name: bound})
    if name == "score":
        assert ids(answer) == [hit["id"] for hit in every if hit["score"] >= bound]
    assert set(ids(answer)) == {hit["id"] for hit in every if hit[name] is not None and hit[name] >= bound}
    assert not answer["plan"]["underfilled"]
    assert ids(await api.search("apple pear fig", min_score={"cosine": 1.0, "bm25": 100.0})) == []


async def test_what_is_too_low_leaves_its_place_to_others(api: Edge) -> None:
    every = (await api.search("grape fruit", k=24))["hits"]
    bound = sorted((hit["bm25"] for hit in every), reverse=True)[3]
    answer = await api.search("grape fruit", k=3, min_score={"bm25": bound})
    assert len(answer["hits"]) == 3


def by_year(descending: bool, chosen: list[Json]) -> list[str]:
    """Missing values last; ties by group, then by id."""
    present = [one for one in chosen if "year" in one["metadata"]]
    missing = [one for one in chosen if "year" not in one["metadata"]]

    def key(one: Json) -> tuple[int, str, str]:
        year = one["metadata"].get("year", 0)
        return (-year if descending else year, one["metadata"]["group"], one["id"])

    return [one["id"] for one in sorted(present, key=key) + sorted(missing, key=key)]


@pytest.mark.parametrize("descending", [False, True])
async def test_documents_are_listed_in_the_order_of_fields(api: Edge, descending: bool) -> None:
    order: list[Any] = ["-year" if descending else "year", {"field": "group", "order": "asc"}]
    expected = by_year(descending, DOCUMENTS)
    answers = [await api.post(f"{PATH}/search", {"sort": order, "k": 10, "offset": at}) for at in (0, 10, 20)]
    assert [id_ for answer in answers for id_ in ids(answer)] == expected
    assert answers[0]["plan"]["mode"] == "browse"
    assert answers[0]["hits"][0]["text"] == next(one["text"] for one in DOCUMENTS if one["id"] == expected[0])
    filtered = await api.post(f"{PATH}/search", {"sort": order, "k": 24, "filter": {"group": "b"}})
    assert ids(filtered) == by_year(descending, DOCUMENTS[1::2])


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
async def test_what_a_search_finds_is_sorted(api: Edge, mode: str) -> None:
    answer = await api.search("lemon", mode=mode, k=24, sort=["-year", "group"])
    unsorted = await api.search("lemon", mode=mode, k=24)
    assert ids(answer) == by_year(True, [one for one in DOCUMENTS if one["id"] in ids(unsorted)])
    assert {hit["id"]: hit["bm25"] for hit in answer["hits"]} == {hit["id"]: hit["bm25"] for hit in unsorted["hits"]}
    assert ids(await api.search("lemon", mode=mode, k=3, offset=2, sort=["-year", "group"])) == ids(answer)[2:5]


async def test_facets_count_what_passes_the_filter(api: Edge) -> None:
    body = {"facets": ["group", {"field": "year", "limit": 2}], "filter": {"n": {"$lt": 10}}}
    counted = (await api.post(f"{PATH}/facets", body))["facets"]
    assert counted == {
        "group": {
            "values": [{"value": "a", "count": 5}, {"value": "b", "count": 5}],
            "distinct": 2,
            "documents": 10,
            "missing": 0,
            "numbers": None,
        },
        "year": {
            "values": [{"value": 2001, "count": 3}, {"value": 2000, "count": 2}],
            "distinct": 3,
            "documents": 6,
            "missing": 4,
            "numbers": {"min": 2000, "max": 2002, "count": 6},
        },
    }
    for asked in ({"query": "lemon", "k": 1}, {"sort": ["n"]}, {"query": "zebra", "min_confidence": 1.0}):
        assert (await api.post(f"{PATH}/search", {**asked, **body}))["facets"] == counted
    assert (await api.post(f"{PATH}/similar/d01", body))["facets"] == counted


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize("group", ["document", "chunk"])
async def test_boosts_add_to_the_score_of_every_candidate(api: Edge, mode: str, group: str) -> None:
    asked: dict[str, Any] = {"mode": mode, "group_by": group if mode != "lexical" else "document", "explain": True}
    boost = [
        {"field": "n", "function": "log1p", "weight": 0.1},
        {"field": "year", "origin": 2003, "scale": 2, "offset": 1, "weight": 0.5},
        {"filter": {"group": "b"}, "weight": 3},
    ]
    plain = (await api.search("apple fruit", k=24, **asked))["hits"]
    boosted = (await api.search("apple fruit", k=24, boost=boost, **asked))["hits"]
    before = {hit["id"]: hit["score"] for hit in plain}
    assert [hit["score"] for hit in boosted] == sorted((hit["score"] for hit in boosted), reverse=True)
    for hit in boosted:
        shares = [one["share"] for one in hit["explain"]["boosts"]]
        assert hit["score"] == pytest.approx(hit["explain"]["fusion"] + sum(shares))
        assert hit["explain"]["fusion"] == pytest.approx(before[hit["id"]])
        assert shares[2] == (3.0 if hit["metadata"]["group"] == "b" else 0.0)
    few = await api.search("apple fruit", k=3, boost=boost[2], **asked)
    assert {hit["metadata"]["group"] for hit in few["hits"]} == {"b"}
    pages = [await api.search("apple fruit", k=4, offset=at, boost=boost, **asked) for at in (0, 4)]
    assert [id_ for page in pages for id_ in ids(page)] == [hit["id"] for hit in boosted][:8]


async def test_the_reranker_blends_what_was_boosted(api: Edge) -> None:
    boost = {"filter": {"group": "b"}, "weight": 1}
    factors = set()
    for hit in (await api.search("apple fruit", k=24, boost=boost, rerank={"depth": 24}, explain=True))["hits"]:
        first = hit["explain"]["fusion"] + hit["explain"]["boosts"][0]["share"]
        factors.add(round((hit["score"] - hit["explain"]["rerank"]["share"]) / first, 6))
    assert len(factors) == 1
    await api.refused(f"{PATH}/search", {"query": "a", "boost": {"field": "group"}}, 422, "boost.0.field")


async def test_hits_come_with_the_text_around_them(api: Edge) -> None:
    for context in ("parent", {"before": 1}):
        for asked in ({"query": "lemon", "k": 2}, {"sort": ["n"], "k": 2}):
            for hit in (await api.post(f"{PATH}/search", {**asked, "context": context}))["hits"]:
                assert hit["context"] == {"text": hit["text"], "start": 0, "end": len(hit["text"])}
    assert "context" not in (await api.search("lemon"))["hits"][0]


async def test_metadata_can_be_a_part_of_itself(api: Edge) -> None:
    metadata = {"a": {"b": 1, "c": [{"d": 1, "e": 2}, {"e": 3}]}, "x.y": 5, "z": 6}
    await api.write({"id": "nested", "text": "persimmon", "metadata": metadata})
    answer = await api.search("persimmon", mode="lexical", fields=["a.c.d", "x.y", "absent"])
    assert answer["hits"][0]["metadata"] == {"a": {"c": [{"d": 1}]}, "x.y": 5}
    assert (await api.search("persimmon", mode="lexical", fields=[]))["hits"][0]["metadata"] == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "a", "offset": 5, "diversity": 0.5}, "offset"),
        ({"query": "a", "offset": 1_000}, "offset"),
        ({"query": "a", "offset": -1}, "offset"),
        ({"sort": ["n"], "offset": 10_001}, "offset"),
        ({"query": "a", "sort": ["n"], "rerank": True}, "rerank"),
        ({"query": "a", "sort": ["n"], "diversity": 0.5}, "diversity"),
        ({"query": "a", "sort": []}, "sort"),
        ({"query": "a", "sort": ["undeclared"]}, "sort.0"),
        ({"sort": ["n", "undeclared"]}, "sort.1"),
        ({"sort": [{"field": "n", "order": "up"}]}, "sort.0.order"),
        ({"sort": ["n"], "mode": "dense"}, "mode"),
        ({"sort": ["n"], "min_score": 0.5}, "sort"),
        ({"query": "a", "min_score": {}}, "min_score"),
        ({"query": "a", "min_score": "high"}, "min_score"),
        ({"query": "a", "min_score": {"cosine": 2}}, "min_score.cosine"),
        ({"query": "a", "mode": "lexical", "min_score": {"cosine": 0.5}}, "min_score.cosine"),
        ({"query": "a", "mode": "dense", "min_score": {"bm25": 1}}, "min_score.bm25"),
        ({"query": "a", "min_score": {"relevance": 0.5}}, "min_score.relevance"),
        ({"query": "a", "fields": ["$year"]}, "fields"),
        ({"query": "a", "fields": "year"}, "fields"),
        ({"query": "a", "context": "children"}, "context"),
        ({"query": "a", "context": {"before": 21}}, "context.before"),
        ({"query": "a", "boost": {}}, "boost.0"),
        ({"query": "a", "boost": {"field": "n", "filter": {"n": 1}}}, "boost.0"),
        ({"query": "a", "boost": {"field": "n", "function": "exp"}}, "boost.0"),
        ({"query": "a", "boost": {"field": "n", "function": "cube"}}, "boost.0.function"),
        ({"query": "a", "boost": {"field": "n", "scale": 2}}, "boost.0.origin"),
        ({"query": "a", "boost": {"field": "n", "scale": 0, "origin": 1}}, "boost.0.scale"),
        ({"query": "a", "boost": {"field": "n", "scale": "soon"}}, "boost.0.scale"),
        ({"query": "a", "boost": {"field": "n", "scale": "1d", "offset": 1}}, "boost.0.offset"),
        ({"query": "a", "boost": {"field": "n", "scale": "1d", "origin": "yesterday"}}, "boost.0.origin"),
        ({"query": "a", "boost": {"field": "n", "scale": -1, "origin": 1}}, "boost.0.scale"),
        ({"query": "a", "boost": {"field": "n", "scale": [1], "origin": True}}, "boost.0.scale"),
        ({"query": "a", "boost": {"filter": {}}}, "boost.0.filter"),
        ({"query": "a", "boost": {"filter": {"n": {"$near": 1}}}}, "boost.0.filter.n.$near"),
        ({"query": "a", "boost": {"field": "n", "weight": 1_000}}, "boost.0.weight"),
        ({"sort": ["n"], "boost": {"field": "n"}}, "boost"),
        ({"query": "a", "facets": ["year", "year"]}, "facets"),
        ({"query": "a", "facets": ["$year"]}, "facets.0"),
        ({"query": "a", "facets": [{"field": "year", "limit": 0}]}, "facets.0.limit"),
    ],
    ids=str,
)
async def test_what_contradicts_itself_is_refused(api: Edge, body: Json, field: str) -> None:
    await api.refused(f"{PATH}/search", body, 422, field)


async def test_similar_documents_and_batches_have_pages_as_well(api: Edge) -> None:
    every = await api.post(f"{PATH}/similar/d05", {"k": 6})
    second = await api.post(f"{PATH}/similar/d05", {"k": 3, "offset": 3})
    assert ids(second) == ids(every)[3:]
    await api.refused(f"{PATH}/similar/d05", {"offset": 1, "diversity": 0.5}, 422, "offset")
    searches = [{"query": "plum", "k": 2, "offset": 2}, {"sort": ["n"], "k": 1}]
    paged, listed = (await api.post(f"{PATH}/search/batch", {"searches": searches}))["results"]
    assert ids(paged) == ids(await api.search("plum", k=4))[2:]
    assert ids(listed) == ["d00"]
