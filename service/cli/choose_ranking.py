"""Choose the ranking settings of a collection on judged queries, through the HTTP API.

Stages: sample queries -> record the scores of both legs -> choose fusion and candidates -> record the reranker's scores
-> choose its depth and weight. Each choice is cross-validated against the settings in use; a choice whose gain lies
within the noise changes nothing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from service.client.http_client import Client
from service.core.collections import FusionSettings, RerankSettings
from service.core.errors import Misconfigured, Unavailable
from service.evaluation import cross_validation, replay
from service.evaluation.beir import BeirJudgments
from service.evaluation.cross_validation import Selection
from service.evaluation.replay import RankingSettings, RecordedQuery

SAMPLED_QUERIES, FOLDS, MIN_QUERIES = 300, 5, 30
"""With fewer than `MIN_QUERIES` judged queries the interval is wider than any gain to be expected."""
CONCURRENT_SEARCHES = 2
"""Few, because live searches continue at the same time."""

FUSIONS = (
    *(FusionSettings(method="convex", alpha=round(0.05 * step, 2)) for step in range(21)),
    *(FusionSettings(method="rrf", k=k) for k in (10, 20, 60)),
)
CANDIDATES = (50, 100, replay.MAX_CANDIDATES)
RERANKINGS = tuple(
    RerankSettings(depth=depth, weight=round(0.05 * step, 2))
    for depth in (10, 20, 50, replay.MAX_DEPTH)
    for step in range(21)
)

Progress = Callable[[str, int], Callable[[], None]]
"""Takes the name of a stage and its number of steps; returns what is called after each step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningOutcome:
    """What a tuning found. `rerank` is None without a reranker, and `reranker_missing` says why.

    `before`: the settings in use. `after`: the same with every change that is better beyond the noise.
    """

    version: int
    queries: int
    folds: int
    fusion: Selection
    rerank: Selection | None
    reranker_missing: str | None
    before: RankingSettings
    after: RankingSettings
    best: RankingSettings
    """The best on the sample, whether or not that is more than noise."""

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def settings(self) -> dict[str, Any]:
        """The body of the PUT request: the settings that change, with their evidence."""
        if not self.changed:
            return {}
        evidence: dict[str, Any] = {"version": self.version, "queries": self.queries, "folds": self.folds}
        wanted: dict[str, Any] = {"tuned": evidence}
        if self.fusion.better:
            wanted |= {"fusion": asdict(self.after.fusion), "candidates": self.after.candidates}
            evidence["fusion"] = gain_to_json(self.fusion)
        if self.rerank is not None and self.rerank.better and self.after.rerank is not None:
            wanted["rerank"] = asdict(self.after.rerank)
            evidence["rerank"] = gain_to_json(self.rerank)
        return wanted


def tune(
    client: Client,
    collection: str,
    judgments: BeirJudgments,
    *,
    sample: int = SAMPLED_QUERIES,
    folds: int = FOLDS,
    progress: Progress = lambda stage, steps: lambda: None,
) -> TuningOutcome:
    """Run the tuning. Misconfigured with too few judged queries; Unavailable if a leg could not answer all of them."""
    queries = sample_queries(judgments, sample)
    if len(queries) < MIN_QUERIES:
        raise Misconfigured(
            f"{len(queries)} judged queries have a relevant document; {MIN_QUERIES} are needed to tell a gain"
        )
    present = settings_in_use(client.call("GET", f"/v1/collections/{collection}")["settings"])
    recorded, version = _record_legs(client, collection, judgments, queries, progress)

    recipes = first_stage_grid(present)
    scores = _ndcg_table(recorded, recipes, progress("settings of the first stage", len(recorded)))
    fusion = cross_validation.select_setting(scores, 0, folds)
    best = recipes[fusion.chosen]
    before = replace(present, rerank=None)
    after = best if fusion.better else before

    how, rerank = present.rerank or RerankSettings(), None
    reranker_missing = _reranker_unavailable(client, collection, judgments.queries[queries[0]], after)
    if reranker_missing is None:
        reread = _record_reranker(client, collection, judgments, queries, recorded, after, version, progress)
        second = [replace(after, rerank=one) for one in rerank_grid(how)]
        scores = _ndcg_table(reread, second, progress("settings of the reranking", len(reread)))
        rerank = cross_validation.select_setting(scores, 0, folds)
        best = replace(best, rerank=second[rerank.chosen].rerank)
        how = second[rerank.chosen if rerank.better else 0].rerank or how
    return TuningOutcome(
        version=version,
        queries=len(queries),
        folds=folds,
        fusion=fusion,
        rerank=rerank,
        reranker_missing=reranker_missing,
        before=present,
        after=replace(after, rerank=how),
        best=best,
    )


def sample_queries(judgments: BeirJudgments, most: int) -> list[str]:
    """At most `most` queries that have a relevant document; the same ones at every call."""
    usable = sorted(query for query, grades in judgments.grades.items() if max(grades.values(), default=0) > 0)
    return sorted(random.Random(0).sample(usable, min(most, len(usable))))  # noqa: S311 no secret


def settings_in_use(settings: Mapping[str, Any]) -> RankingSettings:
    """The ranking settings of a collection, read from the API's form of its settings."""
    return RankingSettings(
        fusion=FusionSettings(**settings["fusion"]),
        candidates=settings["candidates"],
        rerank=RerankSettings(**settings["rerank"]),
    )


def first_stage_grid(present: RankingSettings) -> list[RankingSettings]:
    """The first stage in use, then all others by growing distance from it: of equals the first is chosen."""
    here = replace(present, rerank=None, candidates=min(present.candidates, replay.MAX_CANDIDATES))
    others = [RankingSettings(fusion=fusion, candidates=candidates) for fusion in FUSIONS for candidates in CANDIDATES]

    def distance(other: RankingSettings) -> tuple[bool, float, int]:
        alphas = round(abs(other.fusion.alpha - here.fusion.alpha), 4)
        return other.fusion.method != here.fusion.method, alphas, abs(other.candidates - here.candidates)

    return [here, *sorted((other for other in others if other != here), key=distance)]


def rerank_grid(present: RerankSettings) -> list[RerankSettings]:
    """The reranking in use, then all others by growing distance in weight, shallow before deep."""
    here = replace(present, depth=min(present.depth, replay.MAX_DEPTH))
    others = [other for other in RERANKINGS if other != here]
    return [here, *sorted(others, key=lambda other: (round(abs(other.weight - here.weight), 4), other.depth))]


def _record_legs(
    client: Client, collection: str, judgments: BeirJudgments, queries: Sequence[str], progress: Progress
) -> tuple[list[RecordedQuery], int]:
    """The scores that both legs give for each query, and the embedder version that answered."""
    step = progress("queries", len(queries))
    versions: set[int] = set()

    def ask(query: str) -> RecordedQuery:
        answers = client.search_batch(collection, replay.leg_requests(judgments.queries[query]))
        for answer in answers:
            _require_complete(answer)
            versions.add(answer["embedder_version"])
        step()
        return replay.recorded_query(answers, judgments.grades[query])

    with ThreadPoolExecutor(CONCURRENT_SEARCHES) as threads:
        return list(threads.map(ask, queries)), _single_version(versions)


def _reranker_unavailable(client: Client, collection: str, text: str, recipe: RankingSettings) -> str | None:
    """Why the reranker cannot be tuned (none is configured, or it cannot be loaded); None if it can."""
    answer = client.search(collection, {**replay.rerank_request(text, recipe), "k": 1})
    reasons = [note["reason"] for note in answer["degraded"] if note["stage"] == "rerank"]
    return None if answer["plan"]["reranked"] or not reasons else str(reasons[0])


def _record_reranker(
    client: Client,
    collection: str,
    judgments: BeirJudgments,
    queries: Sequence[str],
    recorded: Sequence[RecordedQuery],
    recipe: RankingSettings,
    version: int,
    progress: Progress,
) -> list[RecordedQuery]:
    """The recorded queries with the reranker's scores of their best hits."""
    step = progress("queries reranked", len(queries))

    def read(query: str, one: RecordedQuery) -> RecordedQuery:
        answer = client.search(collection, replay.rerank_request(judgments.queries[query], recipe))
        _require_complete(answer)
        _single_version({version, answer["embedder_version"]})
        step()
        return replace(one, relevance=replay.rerank_scores(answer))

    with ThreadPoolExecutor(CONCURRENT_SEARCHES) as threads:
        return list(threads.map(read, queries, recorded))


def _require_complete(answer: Mapping[str, Any]) -> None:
    """Unavailable if a leg or the reranker was left out: an incomplete answer says nothing about the settings."""
    missing = [note for note in answer["degraded"] if note["stage"] in {"dense", "lexical"}]
    if answer["plan"]["dense"] == "none" or missing:
        reasons = "; ".join(f"{note['stage']}: {note['reason']}" for note in answer["degraded"])
        raise Unavailable(f"a search was answered without one of its legs: {reasons or 'the dense leg did not run'}")
    if any(note["stage"] == "rerank" and "were read" in note["reason"] for note in answer["degraded"]):
        raise Unavailable("the reranker did not read all requested passages")


def _single_version(versions: set[int]) -> int:
    if len(versions) > 1:
        raise Unavailable("another embedder version was promoted during the tuning; run it again")
    return versions.pop()


def _ndcg_table(
    recorded: Sequence[RecordedQuery], recipes: Sequence[RankingSettings], step: Callable[[], None]
) -> cross_validation.Floats:
    """nDCG@10 by setting and query."""
    scores = np.empty((len(recipes), len(recorded)))
    for query, one in enumerate(recorded):
        scores[:, query] = [replay.quality(one, replay.ranking(one, recipe)) for recipe in recipes]
        step()
    return scores


def gain_to_json(found: Selection) -> dict[str, float]:
    figures = {"before": found.before, "after": found.after, "low": found.gain.low, "high": found.gain.high}
    return {name: round(value, 4) for name, value in figures.items()}
