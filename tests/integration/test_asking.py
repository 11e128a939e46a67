"""Ways to ask on a whole service: PostgreSQL, Tantivy and the worker that cuts documents into chunks."""

from typing import Any

import httpx
import pytest

from tests.edge import hit_ids as ids
from tests.integration.conftest import written

pytestmark = pytest.mark.database

COLLECTION = "library"
PATH = f"/v1/collections/{COLLECTION}"
CATS = "The small cat purrs and hunts mice at night near the old barn."
BUDGET = "Parliament votes on the budget of the year after a long debate."
RAIN = "Rain falls in the high mountains and fills the rivers below."
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "book/one", "text": f"{CATS}\n\n{BUDGET}\n\n{RAIN}", "metadata": {"kind": "book"}},
    {"id": "cats", "text": CATS, "metadata": {"kind": "note"}},
    {"id": "kitten", "text": "A small kitten purrs and hunts mice near the barn.", "metadata": {"kind": "note"}},
    {"id": "budget", "text": BUDGET, "metadata": {"kind": "note"}},
    {"id": "debate", "text": "A long debate on the budget in parliament.", "metadata": {"kind": "paper"}},
    {"id": "rain", "text": RAIN, "metadata": {"kind": "paper"}},
]


@pytest.fixture
def library(client: httpx.Client) -> httpx.Client:
    chunking = {"max_tokens": 20, "overlap_tokens": 0}
    client.put(f"/v1/collections/{COLLECTION}", json={"chunking": chunking}).raise_for_status()
    written(client, COLLECTION, *DOCUMENTS)
    return client


def run_search(client: httpx.Client, path: str = "search", **body: Any) -> Any:
    answer = client.post(f"{PATH}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_hits_are_near_the_positive_examples_and_never_the_examples(library: httpx.Client) -> None:
    near = run_search(library, like={"positive": ["cats"]}, k=5)
    assert ids(near)[0] in {"kitten", "book/one"}
    assert sorted(ids(near)) == ["book/one", "budget", "debate", "kitten", "rain"]
    away = run_search(library, like={"positive": ["budget", {"text": RAIN}], "negative": ["debate"]}, k=10)
    assert not {"budget", "debate"} & set(ids(away))
    assert ids(away)[0] in {"rain", "book/one"}
    filtered = run_search(library, like={"positive": ["cats"]}, filter={"kind": "paper"})
    assert sorted(ids(filtered)) == ["debate", "rain"]
    assert not filtered["plan"]["underfilled"]


def test_a_document_of_many_chunks_is_one_example(library: httpx.Client) -> None:
    chunks = run_search(library, query="x", group_by="chunk", k=50)["hits"]
    assert len({hit["chunk"] for hit in chunks if hit["id"] == "book/one"}) >= 3
    (book,) = run_search(library, query=CATS, k=1, filter={"kind": "book"}, include=["vector"])["hits"]
    vector = book["vector"]
    assert len(vector) == 64
    similar = run_search(library, "similar/book%2Fone", k=10)
    assert sorted(ids(similar)) == ["budget", "cats", "debate", "kitten", "rain"]
    by_vector = run_search(library, like={"positive": [{"vector": vector}]}, embedder_version=1, k=1)
    assert ids(by_vector) == ["book/one"]


def test_chunks_are_hits_with_their_own_places(library: httpx.Client) -> None:
    answer = run_search(library, query="parliament debate budget", group_by="chunk", k=50, explain=True)
    of_book = {hit["chunk"]: hit for hit in answer["hits"] if hit["id"] == "book/one"}
    assert len(of_book) >= 3
    text = DOCUMENTS[0]["text"]
    assert all(text[hit["start"] : hit["end"]] == hit["text"] for hit in of_book.values())
    lexical = {chunk: (hit["explain"]["lexical"] or {"share": 0})["share"] for chunk, hit in of_book.items()}
    assert len(set(lexical.values())) > 1, "each chunk has its own part of what its document scores"
    best = max(of_book.values(), key=lambda hit: hit["score"])
    assert "budget" in best["text"]
    assert lexical[best["chunk"]] == max(lexical.values())
    assert len(run_search(library, query="parliament debate budget", group_by="chunk", k=4)["hits"]) == 4
    books = run_search(library, query="cat", group_by="chunk", k=50, filter={"kind": "book"})
    assert {hit["id"] for hit in books["hits"]} == {"book/one"}
    assert len(books["hits"]) == len(of_book)


def test_several_queries_and_diversity(library: httpx.Client) -> None:
    answer = run_search(library, queries=["small cat mice", {"query": "rain rivers", "weight": 2}], k=6, explain=True)
    assert {"cats", "rain"} <= set(ids(answer)[:4])
    for hit in answer["hits"]:
        assert hit["score"] == pytest.approx(sum(one["gain"] for one in hit["explain"]["queries"]))
        assert all(one["dense"] is not None for one in hit["explain"]["queries"])
    plain = run_search(library, query="small cat purrs hunts mice", k=2)
    assert set(ids(plain)) <= {"cats", "kitten", "book/one"}
    diverse = run_search(library, query="small cat purrs hunts mice", k=3, diversity=1.0)
    assert ids(diverse)[0] == ids(plain)[0]
    assert set(ids(diverse)) & {"budget", "debate", "rain"}


def test_a_batch_answers_as_its_searches_would_alone(library: httpx.Client) -> None:
    searches: list[dict[str, Any]] = [
        {"query": "cat"},
        {"query": "debate", "mode": "lexical"},
        {"queries": ["rain", "cat"], "k": 3},
        {"like": {"positive": ["cats", {"text": "purrs"}]}, "group_by": "chunk"},
        {"query": "budget", "mode": "dense", "diversity": 0.5},
    ]
    together = run_search(library, "search/batch", searches=searches)["results"]
    for search, answer in zip(searches, together, strict=True):
        assert answer["hits"] == run_search(library, **search)["hits"]
        assert answer["degraded"] == []
