"""Vectors from elsewhere: a collection whose embedder is `external`, so that no model runs in Azimuth.

Documents and searches carry their vector. The words of documents are searched all the same (BM25), so a hybrid search
uses both. `embed` stands for your model or your provider; `identity` says which one it is, and becomes part of the
fingerprint of the embedder version.
"""

import hashlib
import math
import os

import httpx

DIMENSIONS = 64


def embed(text: str) -> list[float]:
    """A stand-in: words are hashed into dimensions. Put your model here."""
    vector = [0.0] * DIMENSIONS
    for word in text.lower().split():
        vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % DIMENSIONS] += 1.0
    length = math.hypot(*vector)
    return [value / length for value in vector]


TEXTS = {"heron": "a bird that waits for fish", "otter": "it swims after fish", "badger": "it digs in woods at night"}

with httpx.Client(base_url=os.environ.get("AZIMUTH_URL", "http://127.0.0.1:8000"), timeout=90) as client:
    collection = "/v1/collections/example-vectors"
    embedder = {"model": "external", "dimensions": DIMENSIONS, "identity": "hashed words, 64"}
    client.put(collection, json={"embedder": embedder}).raise_for_status()
    documents = [{"id": id, "text": text, "vector": embed(text)} for id, text in TEXTS.items()]
    client.post(f"{collection}/documents?wait=true", json={"documents": documents}).raise_for_status()

    question = "digs at night"
    body = {"query": question, "vector": embed(question), "k": 1}
    answer = client.post(f"{collection}/search", json=body).raise_for_status().json()
    print(f"found {answer['hits'][0]['id']}, degraded: {answer['degraded']}")

    words_alone = client.post(f"{collection}/search", json={"query": question, "k": 1}).json()
    print(f"without a vector: {words_alone['degraded'][0]['reason']}")
    client.delete(collection, params={"confirm": "example-vectors"}).raise_for_status()
