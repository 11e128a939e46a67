"""Duplicates, clusters and labels over HTTP: what they answer, refuse, and show to whom."""

from typing import Any

import pytest

from tests.edge import Edge, api_fixture, assert_problem

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("computed_here")]
ONE = "/v1/collections/papers"
TEXTS = {
    "a": "stars shine in the night sky", "b": "stars shine in the night sky tonight", "c": "the moon and stars shine",
    "d": "bread is baked from flour", "e": "bread is baked from flour and salt", "f": "flour water and salt make bread",
}  # fmt: skip


api = api_fixture(*({"id": id_, "text": text, "metadata": {"kind": id_ < "d"}} for id_, text in TEXTS.items()))


async def test_nearly_equal_documents_come_first(api: Edge) -> None:
    found = await api.post(f"{ONE}/duplicates", {"threshold": 0.7})
    assert (found["version"], found["compared"], found["complete"]) == (1, 6, True)
    assert {tuple(one["ids"]) for one in found["pairs"][:2]} == {("a", "b"), ("d", "e")}
    assert found["count"] == len(found["pairs"])
    filtered = await api.post(f"{ONE}/duplicates", {"threshold": 0.8, "filter": {"kind": True}})
    assert {id_ for one in filtered["pairs"] for id_ in one["ids"]} <= {"a", "b", "c"}
    assert len((await api.post(f"{ONE}/duplicates", {"threshold": -1, "limit": 2}))["pairs"]) == 2


async def test_clusters_are_named(api: Edge) -> None:
    found = await api.post(f"{ONE}/clusters", {"clusters": 2, "words": 2, "members": 5})
    assert sorted(sorted(one["ids"]) for one in found["clusters"]) == [["a", "b", "c"], ["d", "e", "f"]]
    assert {"stars", "bread"} <= {word for one in found["clusters"] for word in one["words"]}


async def test_texts_and_documents_get_labels(api: Edge) -> None:
    zero = await api.post(f"{ONE}/classify", {"labels": ["stars in the sky", "bread of flour"]})
    assert [one["label"] for one in zero["results"]] == ["stars in the sky"] * 3 + ["bread of flour"] * 3
    examples = [{"id": "a", "label": "sky"}, {"id": "b", "label": "sky"}, {"text": TEXTS["f"], "label": "food"}]
    learnt = await api.post(f"{ONE}/classify", {"examples": examples, "texts": ["stars shine", "flour and bread"]})
    assert [(one["id"], one["label"]) for one in learnt["results"]] == [(None, "sky"), (None, "food")]
    assert (learnt["majority"], learnt["accuracy"]) == (0.6667, {"centroid": None, "logistic": None})
    few = await api.post(f"{ONE}/classify", {"labels": ["stars", "bread"], "limit": 2})
    assert ([one["id"] for one in few["results"]], few["complete"]) == (["a", "b"], False)


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("duplicates", {"threshold": 1.5}, "threshold"),
        ("duplicates", {"limit": 0}, "limit"),
        ("duplicates", {"filter": {"$no": 1}}, "filter.$no"),
        ("clusters", {"clusters": 1}, "clusters"),
        ("classify", {}, None),
        ("classify", {"labels": ["one"]}, "labels"),
        ("classify", {"labels": ["one", "one"]}, None),
        ("classify", {"examples": [{"id": "a", "label": "x"}, {"id": "b", "label": "x"}]}, None),
        ("classify", {"examples": [{"id": "a", "label": str(at)} for at in range(101)]}, None),
        ("classify", {"examples": [{"id": "a", "label": "x"}, {"id": "zz", "label": "y"}]}, "examples.1.id"),
        ("classify", {"examples": [{"label": "x"}, {"id": "a", "label": "y"}]}, "examples.0"),
        ("classify", {"labels": ["one", "two"], "texts": ["a"], "filter": {"kind": True}}, None),
    ],
)
async def test_bad_input_is_refused(api: Edge, route: str, body: dict[str, Any], field: str | None) -> None:
    await api.refused(f"{ONE}/{route}", body, 422, field)


async def test_an_empty_collection_has_none(api: Edge) -> None:
    await api.collection("empty")
    url = "/v1/collections/empty"
    assert (await api.post(f"{url}/duplicates"))["pairs"] == (await api.post(f"{url}/clusters"))["clusters"] == []
    assert (await api.post(f"{url}/classify", {"labels": ["one", "two"]}))["results"] == []
    examples = [{"text": "stars", "label": "sky"}, {"text": "bread", "label": "food"}]
    assert (await api.post(f"{url}/classify", {"examples": examples}))["results"] == []


async def test_texts_of_a_client_that_makes_its_vectors_cannot_be_encoded(api: Edge) -> None:
    await api.collection("own", embedder={"model": "external", "dimensions": 2, "identity": "mine"})
    documents = [{"id": id_, "text": id_, "vector": vector} for id_, vector in (("a", [1, 0]), ("b", [1, 0.01]))]
    await api.write(*documents, name="own")
    url = "/v1/collections/own"
    (pair,) = (await api.post(f"{url}/duplicates"))["pairs"]
    assert pair["ids"] == ["a", "b"]
    assert_problem(await api.client.post(f"{url}/classify", json={"labels": ["one", "two"]}), 409)
    examples = [{"id": "a", "label": "x"}, {"id": "b", "label": "y"}]
    assert len((await api.post(f"{url}/classify", {"examples": examples}))["results"]) == 2
