"""Measures of drift of live queries, with verdicts and advice. Pure.

Against the collection: do clients ask for what it holds? That is judged query by query (confidence, words), because a
set of queries may lie anywhere in the space: queries about five of a hundred subjects are farther from the documents
as a whole than unrelated queries about everything (docs/decisions/0030). The distance of the whole has no verdict.

Against earlier queries: do clients ask for other things than before? That is no fault, so the worst verdict is "watch".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

import numpy as np

from service.core.ids import Vectors
from service.core.verdict import Verdict, worst_verdict
from service.drift import two_sample
from service.drift.query_window import MIN_LATEST, WindowedQuery
from service.drift.two_sample import Estimate

IN_DOMAIN_THRESHOLD = 0.5
"""A query whose `in_domain` is below it counts as out of the domain."""
SIGNIFICANCE = 0.01
"""A change is significant where its p-value is at most this. It is that small because it is tested every minute."""

OUT_WATCH, OUT_BROKEN = 0.25, 0.5
UNKNOWN_WATCH = 0.05
"""Share of unknown words beyond the share that is expected of the collection's own sentences."""
MMD_WATCH, SHIFT_WATCH, SCORE_WATCH = 0.10, 0.15, 0.20
"""docs/drift.md has the measurements that these limits come from."""

DriftMeasureName = Literal["out_of_domain", "unknown_words", "corpus_distance", "centroid_shift", "mmd", "top_score"]
DRIFT_MEASURES: tuple[DriftMeasureName, ...] = get_args(DriftMeasureName)
DriftReference = Literal["collection", "earlier"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionReference:
    """What a version's own collection is like. `vectors`: random chunks, [n, dimensions]. `rare_words`, `words`: for
    sentences of its documents, the number of words that no other document has, and of all."""

    vectors: Vectors
    rare_words: Sequence[int]
    words: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftMeasure:
    """`estimate` None: it was not measured, and `message` says why. `verdict` None: also where there is no limit."""

    name: DriftMeasureName
    estimate: Estimate | None = None
    verdict: Verdict | None = None
    message: str
    advice: str = ""

    @property
    def reference(self) -> DriftReference:
        """What the latest queries were compared with."""
        return "earlier" if self.name in ("centroid_shift", "mmd", "top_score") else "collection"


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftAssessment:
    """All measures at one moment. `best_cosine`: the median of the latest queries; None where none is known."""

    measures: tuple[DriftMeasure, ...]
    best_cosine: float | None

    @property
    def verdict(self) -> Verdict | None:
        return worst_verdict(measure.verdict for measure in self.measures)


def assess_drift(
    latest: Sequence[WindowedQuery], earlier: Sequence[WindowedQuery], reference: CollectionReference | None
) -> DriftAssessment:
    """`reference` None: nothing is known of the collection yet. Takes a second for 500 queries of 384 dimensions."""
    cosines = _cosines(latest)
    measures = (
        _out_of_domain(latest),
        _unknown_words(latest, reference),
        _corpus_distance(latest, reference),
        _moved("centroid_shift", latest, earlier),
        _moved("mmd", latest, earlier),
        _top_score(latest, earlier),
    )
    return DriftAssessment(measures=measures, best_cosine=median(cosines) if cosines else None)


def _out_of_domain(latest: Sequence[WindowedQuery]) -> DriftMeasure:
    known = [query.in_domain for query in latest if query.in_domain is not None]
    if len(known) < MIN_LATEST:
        message = f"the confidence of {len(known)} queries is known, and {MIN_LATEST} are needed"
        return DriftMeasure(name="out_of_domain", message=message)
    estimate = two_sample.pooled_share([one < IN_DOMAIN_THRESHOLD for one in known], [1] * len(known))
    message = f"{estimate.value:.0%} of the queries are more likely unrelated to this collection than meant for it"
    if estimate.low >= OUT_BROKEN:
        advice = (
            "most of the queries ask for nothing in this collection: wrong collection, wrong language, or an embedder "
            "that knows neither; set min_confidence to return no hits rather than unrelated ones"
        )
        return DriftMeasure(name="out_of_domain", estimate=estimate, verdict="broken", message=message, advice=advice)
    advice = "look at the queries: documents may be missing, or a client may search the wrong collection"
    return _judged("out_of_domain", estimate, estimate.low >= OUT_WATCH, message, advice)


def _unknown_words(latest: Sequence[WindowedQuery], reference: CollectionReference | None) -> DriftMeasure:
    """Compares the share of query words that are in no document with the share that new text of the collection has.

    The share of new words in further text is estimated by the share of words that occur once (Good 1953, "The
    population frequencies of species"): a small collection knows fewer words, and that is no drift.
    """
    counted = [query.words for query in latest if query.words is not None and query.words[1]]
    if len(counted) < MIN_LATEST or reference is None or sum(reference.words) == 0:
        return DriftMeasure(name="unknown_words", message="the words of too few queries or documents were looked up")
    estimate = two_sample.pooled_share([unknown for unknown, _ in counted], [words for _, words in counted])
    expected = two_sample.pooled_share(reference.rare_words, reference.words)
    beyond = estimate.value - expected.value > UNKNOWN_WATCH and estimate.low > expected.high
    message = f"{estimate.value:.1%} of the words are in no document, where {expected.value:.1%} are expected"
    advice = "the lexical leg cannot find these words: look for another language, missing names, or typos (`typos`)"
    return _judged("unknown_words", estimate, beyond, message, advice)


def _corpus_distance(latest: Sequence[WindowedQuery], reference: CollectionReference | None) -> DriftMeasure:
    if len(latest) < MIN_LATEST or reference is None or len(reference.vectors) < MIN_LATEST:
        return DriftMeasure(name="corpus_distance", message=f"{MIN_LATEST} queries and {MIN_LATEST} chunks are needed")
    estimate = two_sample.mmd(_vectors(latest), reference.vectors)
    message = f"the queries lie {estimate.value:.2f} (MMD) from the documents; only a change of this distance matters"
    return DriftMeasure(name="corpus_distance", estimate=estimate, message=message)


def _moved(
    name: Literal["centroid_shift", "mmd"], latest: Sequence[WindowedQuery], earlier: Sequence[WindowedQuery]
) -> DriftMeasure:
    """How far the vectors of the queries moved."""
    if min(len(latest), len(earlier)) < MIN_LATEST:
        return DriftMeasure(name=name, message=f"{MIN_LATEST} queries and {MIN_LATEST} earlier ones are needed")
    if name == "mmd":
        measure, limit, words = two_sample.mmd, MMD_WATCH, "the queries lie {:.2f} (MMD) from the earlier ones"
    else:
        measure, limit = two_sample.centroid_shift, SHIFT_WATCH
        words = "the centroid of the queries moved by {:.2f} of their spread"
    estimate = measure(_vectors(latest), _vectors(earlier))
    moved, distance = _exceeds(estimate, limit), words.format(estimate.value)
    advice = "clients ask for other things than before: out_of_domain tells whether this collection has them"
    return _judged(name, estimate, moved, f"{distance}: {_significance(estimate, moved)}", advice)


def _top_score(latest: Sequence[WindowedQuery], earlier: Sequence[WindowedQuery]) -> DriftMeasure:
    """Compares the best cosines of the queries. Only falling ones are a reason to look."""
    new, old = _cosines(latest), _cosines(earlier)
    if min(len(new), len(old)) < MIN_LATEST:
        message = f"{MIN_LATEST} unfiltered queries and {MIN_LATEST} earlier ones are needed"
        return DriftMeasure(name="top_score", message=message)
    estimate = two_sample.ks_statistic(new, old)
    fell = _exceeds(estimate, SCORE_WATCH) and median(new) < median(old)
    medians = f"the median of the best cosines is {median(new):.2f}, it was {median(old):.2f}"
    advice = (
        "the best hits are worse than before: other queries, deleted documents, or the index; see out_of_domain and "
        "recall"
    )
    return _judged("top_score", estimate, fell, f"{medians}: {_significance(estimate, fell)}", advice)


def _judged(name: DriftMeasureName, estimate: Estimate, watched: bool, message: str, advice: str) -> DriftMeasure:
    if not watched:
        return DriftMeasure(name=name, estimate=estimate, verdict="healthy", message=message)
    return DriftMeasure(name=name, estimate=estimate, verdict="watch", message=message, advice=advice)


def _exceeds(estimate: Estimate, limit: float) -> bool:
    return estimate.value >= limit and estimate.p_value is not None and estimate.p_value <= SIGNIFICANCE


def _significance(estimate: Estimate, exceeds: bool) -> str:
    p_value = math.nan if estimate.p_value is None else estimate.p_value
    if p_value > SIGNIFICANCE:
        return f"no more than chance explains (p {p_value:.2f})"
    return f"beyond chance (p {p_value:.3f})" + ("" if exceeds else ", but little")


def _cosines(queries: Sequence[WindowedQuery]) -> list[float]:
    return [query.cosine for query in queries if query.cosine is not None]


def _vectors(queries: Sequence[WindowedQuery]) -> Vectors:
    return np.stack([query.vector for query in queries]).astype(np.float32)
