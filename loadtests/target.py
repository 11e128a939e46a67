"""Does the service hold a recall target, and at what price? `python -m loadtests.target`.

For each target, from a cold start (an index that was just built) and after 30 % of the documents were deleted and
replaced: which `ef_search` the service arrives at, the true recall of what clients get with it, by brute force outside
of the service, and its latency beside that of the cheapest fixed `ef_search` on the ladder whose true recall holds the
target, in turns, query by query.

Clients bring vectors: the collection has no texts to calibrate with but disturbed vectors, which is what is asked. What
is stored has random directions, the hardest there is for an index of so many dimensions: in clusters, the smallest rung
would hold any target.
"""

import argparse
import http.client
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from loadtests.clients import Answers, ask, ask_at_once
from loadtests.figures import heading, median, table
from loadtests.recall import QUIET, SEED, K, request
from loadtests.sandbox import sandbox, until
from service.client.http_client import Client
from service.core.ids import Vectors
from service.recall.ef_policy import EF_STEPS
from service.spaces.sampling import perturbed_vectors

COLLECTION = "target"
PATH = f"/v1/collections/{COLLECTION}"
DIMENSIONS = 64
TARGETS = (0.90, 0.95, 0.99)
REPLACED = 0.3
DEARER = 1.15
BATCH = 500
SETTLE_SECONDS = 7_200.0


@dataclass
class Corpus:
    """What is stored: a name and a vector of each document."""

    names: list[str]
    vectors: Vectors

    def truth(self, asked: Vectors) -> list[set[str]]:
        """The nearest by brute force, over the halves that the table holds."""
        rows = self.vectors.astype(np.float16).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found = []
        for at in range(0, len(asked), 50):
            best = np.argpartition(-(asked[at : at + 50] @ rows.T), K, axis=1)[:, :K]
            found += [{self.names[place] for place in own} for own in best]
        return found


def directions(count: int, seed: int) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    units: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def write(address: str, names: Sequence[str], vectors: Vectors) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    for at in range(0, len(names), BATCH):
        rows = zip(names[at : at + BATCH], vectors[at : at + BATCH].tolist(), strict=True)
        documents = [{"id": name, "text": name, "vector": [round(one, 6) for one in row]} for name, row in rows]
        body = json.dumps({"documents": documents}).encode()
        connection.request("POST", f"{PATH}/documents", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        read = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {read[:300]!r}")
    connection.close()


def replace(address: str, client: Client, corpus: Corpus) -> Corpus:
    """Delete 30 % of the documents, chosen at random, and write as many others."""
    chance = np.random.default_rng(SEED + 1)
    gone = np.zeros(len(corpus.names), bool)
    gone[chance.permutation(len(gone))[: round(REPLACED * len(gone))]] = True
    doomed = [name for name, leaves in zip(corpus.names, gone, strict=True) if leaves]
    for at in range(0, len(doomed), BATCH):
        client.call("POST", f"{PATH}/documents/delete", json={"ids": doomed[at : at + BATCH]})
    fresh = directions(len(doomed), SEED + 2)
    names = [f"n{at}" for at in range(len(doomed))]
    write(address, names, fresh)
    kept = [name for name, leaves in zip(corpus.names, gone, strict=True) if not leaves]
    return Corpus(kept + names, np.concatenate([corpus.vectors[~gone], fresh]))


def standing(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.call("GET", f"{PATH}/recall")["versions"][0]
    return found


def arrive(address: str, client: Client, target: float, since: str, asked: Vectors, traffic: float) -> dict[str, Any]:
    """Set the target, wait until it was calibrated for, search for some seconds, and say where that led."""
    client.call("PUT", PATH, json={"recall_target": target})

    def calibrated() -> bool:
        told = standing(client)
        curve, ef_settings = told["curve"], told["efforts"]
        if curve is None or not ef_settings or curve["measured_at"] <= since:
            return False
        return bool(ef_settings[0]["changed_at"] >= curve["measured_at"] and str(target) in ef_settings[0]["reason"])

    until(calibrated, seconds=SETTLE_SECONDS, pause=0.5)
    over = time.monotonic() + traffic
    requests = [request(vector) for vector in asked]
    while time.monotonic() < over:
        ask_at_once(address, COLLECTION, requests, 2)
    effort: dict[str, Any] = standing(client)["efforts"][0]
    return effort


def recall(answers: Answers, true: Sequence[set[str]]) -> float:
    found = (len({hit["id"] for hit in body["hits"]} & own) / K for body, own in zip(answers.bodies, true, strict=True))
    return float(np.mean(list(found)))


def cheapest(address: str, asked: Vectors, true: Sequence[set[str]], target: float) -> int | None:
    """The smallest rung whose true recall holds the target; by halves, for recall grows with it."""
    low, high = 0, len(EF_STEPS)
    while low < high:
        middle = (low + high) // 2
        fixed = ask(address, COLLECTION, [request(vector, ef_search=EF_STEPS[middle]) for vector in asked])
        low, high = (low, middle) if recall(fixed, true) >= target else (middle + 1, high)
    return EF_STEPS[low] if low < len(EF_STEPS) else None


def in_turns(address: str, asked: Vectors, ef_search: int) -> tuple[Answers, Answers]:
    """As the service does it, and with this `ef_search`."""
    requests = [one for vector in asked for one in (request(vector), request(vector, ef_search=ef_search))]
    both = ask(address, COLLECTION, requests)
    return (Answers(both.seconds[::2], both.bodies[::2]), Answers(both.seconds[1::2], both.bodies[1::2]))


def rows_of(
    name: str, address: str, client: Client, corpus: Corpus, asked: Vectors, since: str, traffic: float
) -> Iterator[Sequence[object]]:
    true = corpus.truth(asked)
    for target in TARGETS:
        effort = arrive(address, client, target, since, asked, traffic)
        best = cheapest(address, asked, true, target)
        own, fixed = in_turns(address, asked, best or EF_STEPS[-1])
        whole = median(own.seconds) / median(fixed.seconds)
        dense = median(own.stage("dense")) / median(fixed.stage("dense"))
        yield [
            f"{name}, {target:.2f}",
            effort["ef_search"],
            "missed" if effort["missed"] else "",
            recall(own, true),
            best or "none",
            recall(fixed, true),
            median(own.seconds),
            whole,
            dense,
        ]


def measure(address: str, documents: int, queries: int, traffic: float) -> bool:
    stored = directions(documents, SEED)
    corpus = Corpus([f"d{at}" for at in range(documents)], stored)
    chance = np.random.default_rng(SEED)
    embedder = {"model": "external", "dimensions": DIMENSIONS, "identity": "a benchmark"}
    with Client(address) as client:
        client.call("PUT", PATH, json={"embedder": embedder})
        write(address, corpus.names, stored)
        asked = perturbed_vectors(stored[chance.permutation(documents)[:queries]])
        rows = list(rows_of("cold", address, client, corpus, asked, "", traffic))
        before = standing(client)["curve"]["measured_at"]
        corpus = replace(address, client, corpus)
        asked = perturbed_vectors(corpus.vectors[chance.permutation(documents)[:queries]])
        rows += rows_of("replaced", address, client, corpus, asked, before, traffic)
        heading(
            f"{documents:,} chunks, {queries:,} queries, {traffic:g} s of traffic after each calibration: where the "
            "service arrives, and the cheapest fixed ef_search; ms (median), and ratios of the whole search and of its "
            "dense stage"
        )
        table(
            ["state, target", "ef_search", "", "true recall", "fixed", "true recall", "ms", "ratio", "of dense"], rows
        )
        for entry in reversed(client.call("GET", f"{PATH}/audit?limit=100")["entries"]):
            if entry["action"] == "effort":
                print(f"  {entry['at'][11:19]}  {entry['note']}")
    good = all(float(str(row[3])) >= float(str(row[0])[-4:]) - 0.002 and float(str(row[7])) <= DEARER for row in rows)
    print("the targets are held at the price that was promised" if good else "NOT as promised")
    return good


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=1_000)
    arguments.add_argument("--traffic", type=float, default=120.0, help="seconds of searches after each calibration")
    arguments.add_argument("--probes", type=float, default=30_000.0, help="ms of each minute: hours of them in minutes")
    chosen = arguments.parse_args()
    with sandbox() as place, place.api({**QUIET, "AZIMUTH_PROBE_BUDGET_MS": f"{chosen.probes:g}"}) as address:
        measure(address, chosen.documents, chosen.queries, chosen.traffic)


if __name__ == "__main__":
    main()
