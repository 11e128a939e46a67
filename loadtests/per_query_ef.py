"""What would an `ef_search` of its own for each query save? `python -m loadtests.per_query_ef`.

Three spaces: texts in that of the default model (`corpus.py`), clusters, random directions. A third of the queries are
none of the collection's: foreign texts and single words; directions far from all clusters. On one half of the queries
each policy is calibrated, on the other all are measured in turns, through the adapter that serves searches:

fixed        one `ef_search` for all, the smallest that holds the target
by sample    by the highest cosine among 500 random chunks, known before the search
by scan      by the cosine of the tenth hit of a first, narrow scan; hard queries are scanned again
by Gaussian  the same by the score of Ada-ef (arXiv:2512.06636): how far the first hits lie in the tail of the normal
             distribution of this query's cosines, which mean and covariance of the space give

A policy is a table from bins of its score to steps of `ef_search`, which holds the target on the mean, as `fixed` does.
`saving` compares with the `ef_search` that would give all queries together the recall that the policy reached.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, spearmanr

from loadtests import corpus
from loadtests.figures import heading, median, percentile, table
from loadtests.prepare import QUERIES, SEED, settings_in
from loadtests.sandbox import Sandbox, sandbox
from loadtests.space import clustered, create
from service.confidence.synthetic_queries import foreign_texts
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.documents import Document
from service.core.ids import DocumentId, Vector, Vectors
from service.core.ports.embedder import Encoder
from service.core.ports.vectors import VectorQuery
from service.core.recall import K
from service.core.search import DensePlan
from service.embedder.models.hashing_encoder import HashingEncoder
from service.recall.ef_policy import EF_STEPS
from service.runtime.container import components
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors.vectors import PostgresVectors
from service.store.postgres.versions.versions import PostgresVersions

TARGETS = (0.95, 0.99)
FIRST_SCAN, SAMPLE, BINS = 20, 500, 8
TAILS = norm.isf(np.arange(6) / 1_000)
"""Borders of the five parts of the tail by which Ada-ef scores; a part weighs e times as much as the next one."""

Floats = npt.NDArray[np.float64]
Search = Callable[[Vector, int, int], Awaitable[list[tuple[int, float]]]]
"""The number of each row found with its cosine, best first; by this `ef_search`, and so many."""


@dataclass(frozen=True)
class Policy:
    """`score`: small for easy queries, from the query and the cosines of a first scan, which `scans` says is needed."""

    name: str
    scans: bool
    score: Callable[[Vector, Floats], float]


def policies(stored: Vectors) -> list[Policy]:
    sample = stored[np.random.default_rng(SEED).permutation(len(stored))[:SAMPLE]]
    mean, covariance = stored.mean(0), np.cov(stored, rowvar=False)

    def gaussian(query: Vector, cosines: Floats) -> float:
        z = (cosines[:FIRST_SCAN] - mean @ query) / np.sqrt(query @ covariance @ query)
        return -float(np.exp(-np.arange(5)) @ np.histogram(z, TAILS[::-1])[0][::-1])

    return [
        Policy("by sample", False, lambda query, _: -float((sample @ query).max())),
        Policy("by scan", True, lambda _, cosines: -float(cosines[K - 1])),
        Policy("by Gaussian", True, gaussian),
    ]


def allocate(recall: Floats, bins: npt.NDArray[np.intp], steps: Sequence[int], target: float) -> list[int]:
    """For each bin the place of its step, so that the mean recall holds the target: the best gain a row goes first.

    `recall`: [steps, queries]; `bins`: that of each query.
    """
    used = [own for own in range(BINS) if (bins == own).any()]
    shares = {own: float((bins == own).mean()) for own in used}
    curves = {own: np.maximum.accumulate(recall[:, bins == own].mean(1)) for own in used}
    chosen = [0] * BINS

    def gain(move: tuple[int, int]) -> float:
        own, to = move
        return float(curves[own][to] - curves[own][chosen[own]]) / (steps[to] - steps[chosen[own]])

    while sum(shares[own] * curves[own][chosen[own]] for own in used) < target:
        moves = [(own, to) for own in used for to in range(chosen[own] + 1, len(steps))]
        if not moves:
            break
        own, to = max(moves, key=gain)
        chosen[own] = to
    return chosen


async def fill(pool: Pool, name: str, stored: Vectors) -> Search:
    spec = EmbedderSpec(model=f"hashing:{stored.shape[1]}")
    space = await create(pool, name, CollectionSettings(embedder=spec), HashingEncoder(spec), ["canary"])
    await space.add([Document(id=DocumentId(f"{at}"), text="x") for at in range(len(stored))], stored)
    await PostgresVersions(pool).build_index(space.version)
    vectors = PostgresVectors(pool)

    async def search(query: Vector, ef_search: int, limit: int) -> list[tuple[int, float]]:
        plan = DensePlan(kind="hnsw", ef_search=ef_search)
        found = await vectors.nearest(VectorQuery(space.version, query, limit, plan))
        return [(int(one.document_id), one.score) for one in found]

    return search


def truth(stored: Vectors, asked: Vectors) -> list[set[int]]:
    """By brute force, over the halves that the table holds."""
    rows = stored.astype(np.float16).astype(np.float32)
    cosines = asked @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    return [set(best) for best in np.argpartition(-cosines, K, axis=1)[:, :K].tolist()]


def recall_of(found: Sequence[tuple[int, float]], true: set[int]) -> float:
    return len({name for name, _ in found[:K]} & true) / K


async def compare(name: str, search: Search, stored: Vectors, asked: Vectors, limit: int) -> None:
    steps = [max(FIRST_SCAN, limit), *(step for step in EF_STEPS if step > max(FIRST_SCAN, limit))]
    true, known = truth(stored, asked), policies(stored)
    found = [[await search(query, step, limit) for query in asked] for step in steps]
    recall = np.array([[recall_of(*one) for one in zip(row, true, strict=True)] for row in found])
    first = [np.array([cosine for _, cosine in one]) for one in found[0]]
    scores = {one.name: np.array([one.score(*pair) for pair in zip(asked, first, strict=True)]) for one in known}
    need = np.array([steps[min(len(steps) - 1, int((own < 0.9).nonzero()[0].max(initial=-1)) + 1)] for own in recall.T])
    fitted, judged = slice(0, None, 2), slice(1, None, 2)
    rows: list[Sequence[object]] = []
    for target in TARGETS:
        holds = recall[:, fitted].mean(1) >= target
        fixed = steps[int(holds.argmax()) if holds.any() else -1]
        tables = {}
        for one in known:
            borders = np.quantile(scores[one.name][fitted], np.linspace(0, 1, BINS + 1)[1:-1])
            bins = np.searchsorted(borders, scores[one.name][fitted])
            tables[one.name] = (borders, allocate(recall[:, fitted], bins, steps, target))
        spent: dict[str, list[tuple[float, float, float]]] = {"fixed": [], **{one.name: [] for one in known}}
        for query, own in zip(asked[judged], true[judged], strict=True):
            for policy in (None, *known):
                started, cost = time.perf_counter(), 0
                if policy is None:
                    answer, cost = await search(query, fixed, limit), fixed
                else:
                    answer, cost = (await search(query, steps[0], limit), steps[0]) if policy.scans else ([], 0)
                    score = policy.score(query, np.array([cosine for _, cosine in answer]))
                    borders, chosen = tables[policy.name]
                    step = steps[chosen[int(np.searchsorted(borders, score))]]
                    if step > cost:
                        answer, cost = await search(query, step, limit), cost + step
                took = time.perf_counter() - started
                spent["fixed" if policy is None else policy.name].append((cost, recall_of(answer, own), took))
        for policy_name, measured in spent.items():
            costs, recalls, seconds = map(np.array, zip(*measured, strict=True))
            curve = np.maximum.accumulate(recall[:, judged].mean(1))
            like = float(np.exp(np.interp(recalls.mean(), curve, np.log(steps))))
            worst = float(np.sort(recalls)[: max(1, len(recalls) // 10)].mean())
            rho = spearmanr(scores[policy_name], need).statistic if policy_name in scores else "-"
            saving = 1 - costs.mean() / like
            times = (median(seconds.tolist()), percentile(seconds.tolist(), 0.95))
            found_share = float(recalls.mean())
            rows.append([f"{target:g}", policy_name, rho, float(costs.mean()), saving, found_share, worst, *times])
    heading(f"{name}: {len(stored):,} rows, {len(asked)} queries, {limit} rows wanted; ms")
    columns = ["target", "policy", "rho", "mean ef", "saving", f"recall@{K}", "worst tenth", "p50", "p95"]
    table(columns, rows)


def spaces(encoder: Encoder, size: int) -> dict[str, tuple[Vectors, Vectors]]:
    """What is stored and what is asked, in random order."""
    chance = np.random.default_rng(SEED)
    made = corpus.build(encoder, QUERIES, SEED)
    texts = np.concatenate([vectors for _, vectors in made.documents(size, SEED)])
    foreign = [one.text for one in foreign_texts()[: QUERIES // 4]] + list(made.words[:: len(made.words) // 50])[:50]
    asked_texts = encoder.encode([*made.queries, *foreign], "query")
    clusters = clustered(size, 384, SEED)
    near = clusters[chance.permutation(size)[:QUERIES]] + clustered(QUERIES, 384, SEED + 1, per_cluster=1)
    far = clustered(QUERIES // 2, 384, SEED + 2, per_cluster=1)
    directions = chance.normal(size=(size + 2 * QUERIES, 64))
    found = {
        "texts": (texts, asked_texts),
        "clusters": (clusters, np.concatenate([near, far])),
        "random directions": (directions[: -2 * QUERIES], directions[-2 * QUERIES :]),
    }
    return {name: (unit(stored), chance.permutation(unit(asked))) for name, (stored, asked) in found.items()}


def unit(rows: npt.NDArray[np.floating]) -> Vectors:
    units: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return units


async def measure(place: Sandbox, size: int, limits: Sequence[int]) -> None:
    settings = settings_in(place.folder)
    models = components.model_registry(settings)
    async with components.open_store(settings, place.url, "benchmark") as store:
        made = spaces(await models.get(models.resolve(EmbedderSpec())), size)
        for name, (stored, asked) in made.items():
            search = await fill(store.pool, name.replace(" ", "-"), stored)
            for limit in limits:
                await compare(name, search, stored, asked, limit)
    await models.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=20_000)
    arguments.add_argument("--limits", type=int, nargs="+", default=[20, 100], help="rows wanted: dense alone, hybrid")
    chosen = arguments.parse_args()
    with sandbox() as place:
        asyncio.run(measure(place, chosen.documents, chosen.limits))


if __name__ == "__main__":
    main()
