"""`azimuth doctor` on a whole service: vectors that mean nothing are found, and a few are not judged."""

import json

import httpx
import numpy as np
import pytest

from tests.commands import run_azimuth
from tests.integration.conftest import Running, written
from tests.rivals import DOCUMENTS

pytestmark = pytest.mark.database


def test_meaningless_external_vectors_are_found(client: httpx.Client, service: Running) -> None:
    embedder = {"model": "external", "dimensions": 32, "identity": "a constant and noise"}
    client.put("/v1/collections/theirs", json={"embedder": embedder}).raise_for_status()
    rows = np.eye(32)[0] + 0.1 * np.random.default_rng(1).normal(size=(len(DOCUMENTS), 32)) / np.sqrt(32)
    documents = [
        {"id": name, "text": text, "vector": row.tolist()}
        for (name, text), row in zip(DOCUMENTS.items(), rows, strict=True)
    ]
    body = {"documents": documents}
    client.post("/v1/collections/theirs/documents", json=body, params={"wait": "true"}).raise_for_status()
    done = run_azimuth(["doctor", "-c", "theirs", "--url", service.url, "--json"])
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["rows"], found["sample"]) == ("broken", len(DOCUMENTS), len(DOCUMENTS))
    verdicts = {one["name"]: one["verdict"] for one in found["measures"]}
    assert (verdicts["mean_cosine"], verdicts["words"], verdicts["meaning"]) == ("broken", "broken", None)
    shown = run_azimuth(["doctor", "-c", "theirs", "--url", service.url])
    assert shown.returncode == 1
    assert "theirs, version 1: broken" in shown.stdout
    metrics = client.get("/metrics").text
    assert 'azimuth_geometry_verdict{collection="theirs",version="1"} 2.0' in metrics
    client.delete("/v1/collections/theirs?confirm=theirs").raise_for_status()


def test_words_find_their_texts_and_too_few_texts_are_not_judged(client: httpx.Client, service: Running) -> None:
    written(client, "subjects", *({"id": name, "text": text} for name, text in DOCUMENTS.items()))
    found = client.get("/v1/collections/subjects/geometry").raise_for_status().json()
    measured = {one["name"]: one["value"] for one in found["measures"]}
    assert measured["meaning"] > 2
    written(client, "few", {"id": "a", "text": "one text alone"})
    done = run_azimuth(["doctor", "-c", "few", "--url", service.url])
    assert done.returncode == 0, done.stderr
    assert "1 vectors are too few to tell" in done.stdout
