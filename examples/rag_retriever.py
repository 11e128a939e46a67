"""A retriever for RAG (retrieval-augmented generation): the passages that go before a question in a prompt.

Hits are chunks, near-duplicates are avoided by `diversity`, and a question that is hardly one for the collection gets
no passages (`min_confidence`), so that the model can say that it does not know instead of inventing something.
Run it on the corpus of `azimuth up --demo`, or name a collection: rag_retriever.py COLLECTION QUESTION.
"""

import os
import sys
from typing import Any

import httpx


def retrieve(collection: str, question: str, passages: int = 4) -> list[dict[str, Any]]:
    """The passages for the question, best first; each names its document and its place there for a citation."""
    body = {
        "query": question,
        "syntax": "plain",  # people and models write quotation marks and signs without meaning anything by them
        "k": passages,
        "group_by": "chunk",
        "diversity": 0.3,
        "min_confidence": 0.2,
        "include": ["text"],
    }
    address = os.environ.get("AZIMUTH_URL", "http://127.0.0.1:8000")
    answer = httpx.post(f"{address}/v1/collections/{collection}/search", json=body, timeout=90).raise_for_status()
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def prompt(question: str, hits: list[dict[str, Any]]) -> str:
    context = "\n\n".join(f"[{at}] {hit['title']} ({hit['id']})\n{hit['text']}" for at, hit in enumerate(hits, start=1))
    return f"Answer from these passages and cite their numbers, or say that you do not know.\n\n{context}\n\n{question}"


if __name__ == "__main__":
    collection, question = sys.argv[1:] or ("python-docs", "How do I cancel a task after a timeout?")
    print(prompt(question, retrieve(collection, question)))
