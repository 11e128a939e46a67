"""The passage of a long document that is shown, on a whole service: PostgreSQL, Tantivy and the worker's chunks."""

import random
from typing import Any

import httpx
import pytest

from tests.integration.conftest import written

pytestmark = pytest.mark.database

CODES = [f"K{number}.{number % 7}" for number in random.Random(3).sample(range(100, 999), 40)]
FILLER = (
    "The unit is cleaned once a week with a dry cloth, and the filter is changed twice a year.",
    "Only trained staff may open the housing, and only while the main switch is off.",
    "The supplier keeps spare parts for ten years from the date of delivery.",
)
SECTIONS = [f"Fault {code}: the valve does not answer. {' '.join(FILLER)} {' '.join(FILLER)}" for code in CODES]
TEXT = "\n\n".join(SECTIONS)
WAYS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "lexical": {"mode": "lexical"},
    "by chunk": {"group_by": "chunk"},
    "filtered": {"filter": {"kind": "manual"}},
    "diverse": {"diversity": 0.2, "k": 3},
}


@pytest.fixture(scope="module")
def client(service: Any) -> Any:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        manual = {"id": "manual", "title": "Manual of the K-100", "text": TEXT, "metadata": {"kind": "manual"}}
        notes = [{"id": f"n{at}", "text": f"Fault X{at}.1 was seen once. {FILLER[at % 3]}"} for at in range(20)]
        written(client, "manuals", manual, *notes)
        external = {"model": "external", "dimensions": 4, "identity": "theirs"}
        client.put("/v1/collections/waiting", json={"embedder": external}).raise_for_status()
        answer = client.post("/v1/collections/waiting/documents", json={"documents": [manual, *notes]})
        assert answer.status_code == 200, answer.text
        yield client


def shown(client: httpx.Client, collection: str, query: str, **body: Any) -> Any:
    answer = client.post(f"/v1/collections/{collection}/search", json={"query": query, "explain": True, **body})
    assert answer.status_code == 200, answer.text
    return next(hit for hit in answer.json()["hits"] if hit["id"] == "manual")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("question", ["what does fault {} mean", 'fault "{}"', "{}", "+{} valve"])
def test_the_passage_with_the_code_is_shown_and_its_code_marked(client: httpx.Client, way: str, question: str) -> None:
    for code in CODES[::4]:
        hit = shown(client, "manuals", question.format(code), **WAYS[way])
        assert code in hit["text"], (code, hit["text"])
        assert TEXT[hit["start"] : hit["end"]] == hit["text"]
        assert f"<mark>{code}</mark>" in hit["highlights"][0]
        assert code in [TEXT[start:end] for start, end in hit["highlight_offsets"]]


def test_what_has_no_vectors_yet_shows_its_words(client: httpx.Client) -> None:
    for code in CODES[::8]:
        hit = shown(client, "waiting", f"fault {code}", mode="lexical")
        assert code in hit["text"]
        assert len(hit["text"]) <= 1000
        assert TEXT[hit["start"] : hit["end"]] == hit["text"]


def test_a_chunk_counts_its_own_words_and_titles_are_marked(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/collections/manuals/search",
        json={"query": f"K-100 fault {CODES[0]}", "group_by": "chunk", "explain": True, "k": 60},
    ).json()
    chunks = [hit for hit in answer["hits"] if hit["id"] == "manual"]
    assert CODES[0] in chunks[0]["text"]
    scores = [hit["explain"]["lexical"] and hit["explain"]["lexical"]["score"] for hit in chunks]
    assert scores[0] == max(score for score in scores if score)
    assert len(set(scores)) > 1
    assert chunks[0]["title_highlight"] == "Manual of the <mark>K-100</mark>"
    assert next(hit for hit in answer["hits"] if hit["id"] != "manual")["title_highlight"] is None
