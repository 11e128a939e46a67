"""A collection with everything to show: an index, live searches that were checked, drift, a second version."""

import random
import time
from typing import Any

import httpx

COLLECTION = "papers"
SETTINGS = {"AZIMUTH_EXACT_BELOW": "50", "AZIMUTH_PROBE_BUDGET_MS": "20000", "AZIMUTH_LOG_LEVEL": "warning"}
SETTINGS |= {"AZIMUTH_DRIFT_SECONDS": "5"}
"""So that a few hundred documents are enough for an index, and a few seconds for samples."""
DOCUMENTS = 300
DEADLINE_SECONDS = 120.0
_SUBJECTS = {
    "tasks": "task timeout cancel event loop coroutine await schedule future thread executor signal queue",
    "files": "file folder path delete copy directory stream write read permission link temporary archive",
    "numbers": "number decimal fraction random mean median integer float round logarithm matrix sum",
    "texts": "text string pattern search replace unicode encode decode split join template format",
    "network": "socket server client request response header address connection protocol certificate proxy port",
}


def documents() -> list[dict[str, Any]]:
    """Each is about one subject, and no two are alike."""
    chance = random.Random(7)
    found = []
    for number in range(DOCUMENTS):
        subject, words = chance.choice(list(_SUBJECTS.items()))
        text = " ".join([*chance.choices(words.split(), k=30), f"case{number}"])
        metadata = {"subject": subject, "year": 2000 + number % 25}
        found.append({"id": f"{subject}-{number}", "title": f"{subject} {number}", "text": text, "metadata": metadata})
    return found


def question(chance: random.Random) -> str:
    return " ".join(chance.choices(chance.choice(list(_SUBJECTS.values())).split(), k=4))


def ask(client: httpx.Client, chance: random.Random, **more: Any) -> Any:
    answer = client.post(f"/v1/collections/{COLLECTION}/search", json={"query": question(chance), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def fill(client: httpx.Client) -> None:
    """Write it, wait until its index is there, and ask until what is measured can be told."""
    client.put(f"/v1/collections/{COLLECTION}", json={}).raise_for_status()
    answer = client.post(f"/v1/collections/{COLLECTION}/documents?wait=true", json={"documents": documents()})
    assert answer.status_code == 200, answer.text
    answer = client.post(f"/v1/collections/{COLLECTION}/versions", json={"embedder": "hashing:32"})
    assert answer.status_code == 202, answer.text
    chance = random.Random(11)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while missing := _missing(client):
        assert time.monotonic() < deadline, missing
        for turn in range(10):
            ask(client, chance, mode="dense" if turn % 2 else "hybrid")
        ask(client, chance, filter={"year": {"$gte": 2012}})


def _missing(client: httpx.Client) -> list[str]:
    versions = client.get(f"/v1/collections/{COLLECTION}/versions").json()["versions"]
    recall = client.get(f"/v1/collections/{COLLECTION}/recall").json()["versions"]
    drift = client.get(f"/v1/collections/{COLLECTION}/drift").json()
    own = next((one for one in recall if one["active"]), None)
    legs = {one["leg"] for one in own["series"]} if own else set()
    found = {
        "an index": any(one["active"] and one["indexed"] for one in versions),
        "a second version": any(one["state"] == "ready" for one in versions),
        "dense samples": "dense" in legs,
        "lexical samples": "lexical" in legs,
        "a curve": bool(own and own["curve"]),
        "drift": bool(drift["history"]),
    }
    return [name for name, there in found.items() if not there]
