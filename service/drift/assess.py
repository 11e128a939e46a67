"""What two samples of queries and the collection itself say of drift: measures, what they mean, and what to do. Pure.

Against the collection: is it asked what it holds? Of queries one by one (confidence, words), for a set of queries may
lie anywhere in the space of its collection: questions about five of a hundred subjects are farther from the documents
as a whole than foreign ones about everything (docs/decisions/0030). The distance of the whole is told without verdict.

Against earlier queries: is it asked otherwise than before? That something else is asked is no fault, so the worst
verdict is "watch".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np

from service.core.ids import Vectors
from service.core.verdict import Verdict
from service.drift import two_sample
from service.drift.query_window import MIN_LATEST, WindowedQuery
from service.drift.two_sample import Gap

DOUBTED = 0.5
"""A query whose `in_domain` is below it counts as out of the domain."""
SURE = 0.01
"""A change is beyond chance where its p-value is at most this: it is looked for each minute."""

OUT_WATCH, OUT_BROKEN = 0.25, 0.5
UNKNOWN_WATCH = 0.05
"""Beyond the share that is expected of the collection's own sentences."""
MMD_WATCH, SHIFT_WATCH, SCORE_WATCH = 0.10, 0.15, 0.20
"""docs/drift.md has the measurements that these come from."""

Name = Literal["out_of_domain", "unknown_words", "corpus_distance", "centroid_shift", "mmd", "top_score"]
NAMES: tuple[Name, ...] = ("out_of_domain", "unknown_words", "corpus_distance", "centroid_shift", "mmd", "top_score")
Against = Literal["collection", "earlier"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionReference:
    """What a version's own collection is like. `vectors`: random chunks, [n, dimensions].

    `unknown`, `words`: of sentences of its documents, how many words each has that no other document says, and in all.
    """

    vectors: Vectors
    unknown: Sequence[int]
    words: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftMeasure:
    """`gap` None: it cannot be told, and `says` why. `verdict` None: then, or where there is no limit to judge by."""

    name: Name
    against: Against
    gap: Gap | None
    verdict: Verdict | None
    says: str
    do: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftAssessment:
    """All measures of one moment. `best_cosine`: the median of the latest queries, None where none is known."""

    measures: tuple[DriftMeasure, ...]
    best_cosine: float | None

    @property
    def verdict(self) -> Verdict | None:
        """The worst of them; None where there is none."""
        told = {measure.verdict for measure in self.measures}
        order: tuple[Verdict, ...] = ("broken", "watch", "healthy")
        return next((verdict for verdict in order if verdict in told), None)


def assess(
    latest: Sequence[WindowedQuery], earlier: Sequence[WindowedQuery], own: CollectionReference | None
) -> DriftAssessment:
    """`own` None: nothing is known of the collection yet. A second for 500 queries of 384 dimensions."""
    cosines = [asked.cosine for asked in latest if asked.cosine is not None]
    measures = (
        _out_of_domain(latest),
        _unknown_words(latest, own),
        _corpus_distance(latest, own),
        _moved("centroid_shift", two_sample.centroid_shift, SHIFT_WATCH, latest, earlier),
        _moved("mmd", two_sample.mmd, MMD_WATCH, latest, earlier),
        _top_score(latest, earlier),
    )
    return DriftAssessment(measures=measures, best_cosine=median(cosines) if cosines else None)


# ---------------------------------------------------------------- against the collection


def _out_of_domain(latest: Sequence[WindowedQuery]) -> DriftMeasure:
    told = [asked.in_domain for asked in latest if asked.in_domain is not None]
    if len(told) < MIN_LATEST:
        return _untold(
            "out_of_domain",
            "collection",
            f"the confidence of {len(told)} queries is known, and {MIN_LATEST} are needed",
        )
    gap = two_sample.share([one < DOUBTED for one in told], [1] * len(told))
    verdict = _verdict(gap.low >= OUT_WATCH, gap.low >= OUT_BROKEN)
    return DriftMeasure(
        name="out_of_domain",
        against="collection",
        gap=gap,
        verdict=verdict,
        says=f"{gap.value:.0%} of the queries are more likely foreign than for this collection",
        do={
            "healthy": "",
            "watch": "look at what is asked: documents may be missing, or a client may ask the wrong collection",
            "broken": "most of what is asked is not in here: wrong collection, wrong language, or an embedder that "
            "does not know either; set min_confidence to answer nothing rather than anything",
        }[verdict],
    )


def _unknown_words(latest: Sequence[WindowedQuery], own: CollectionReference | None) -> DriftMeasure:
    """More words that nobody says than of the collection's own sentences others do not say.

    What share of further text is words never met before is estimated by the share of words met once (Good 1953, "The
    population frequencies of species"): a small collection knows fewer words, and that is no drift.
    """
    looked = [asked.words for asked in latest if asked.words is not None and asked.words[1]]
    if len(looked) < MIN_LATEST or own is None or sum(own.words) == 0:
        return _untold("unknown_words", "collection", "the words of too few queries or documents were looked up")
    gap = two_sample.share([unknown for unknown, _ in looked], [words for _, words in looked])
    expected = two_sample.share(own.unknown, own.words)
    beyond = gap.value - expected.value > UNKNOWN_WATCH and gap.low > expected.high
    return DriftMeasure(
        name="unknown_words",
        against="collection",
        gap=gap,
        verdict=_verdict(beyond, False),
        says=f"{gap.value:.1%} of the words are in no document, where {expected.value:.1%} are expected",
        do="the lexical leg cannot find these words: look for another language, names that are missing, or typos "
        "(`typos`)"
        if beyond
        else "",
    )


def _corpus_distance(latest: Sequence[WindowedQuery], own: CollectionReference | None) -> DriftMeasure:
    if len(latest) < MIN_LATEST or own is None or len(own.vectors) < MIN_LATEST:
        return _untold("corpus_distance", "collection", f"{MIN_LATEST} queries and {MIN_LATEST} chunks are needed")
    gap = two_sample.mmd(_rows(latest), own.vectors)
    return DriftMeasure(
        name="corpus_distance",
        against="collection",
        gap=gap,
        verdict=None,
        says=f"the queries lie {gap.value:.2f} (MMD) from the documents, as queries always do: only its course tells",
        do="",
    )


# ---------------------------------------------------------------- against earlier queries


def _moved(
    name: Literal["centroid_shift", "mmd"],
    measure: Callable[[Vectors, Vectors], Gap],
    limit: float,
    latest: Sequence[WindowedQuery],
    earlier: Sequence[WindowedQuery],
) -> DriftMeasure:
    if min(len(latest), len(earlier)) < MIN_LATEST:
        return _untold(name, "earlier", f"{MIN_LATEST} queries and {MIN_LATEST} before them are needed")
    gap = measure(_rows(latest), _rows(earlier))
    moved = _beyond(gap, limit)
    what = "middle of the queries moved by" if name == "centroid_shift" else "queries lie"
    unit = "of their spread" if name == "centroid_shift" else "(MMD) from those before"
    return DriftMeasure(
        name=name,
        against="earlier",
        gap=gap,
        verdict=_verdict(moved, False),
        says=f"the {what} {gap.value:.2f} {unit}: {_chance(gap, moved)}",
        do="other things are asked than before: see out_of_domain for whether they are for this collection"
        if moved
        else "",
    )


def _top_score(latest: Sequence[WindowedQuery], earlier: Sequence[WindowedQuery]) -> DriftMeasure:
    """Of the best cosine of each query. That they rise is no reason to worry."""
    new, old = ([asked.cosine for asked in some if asked.cosine is not None] for some in (latest, earlier))
    if min(len(new), len(old)) < MIN_LATEST:
        return _untold(
            "top_score", "earlier", f"{MIN_LATEST} unfiltered queries and {MIN_LATEST} before them are needed"
        )
    gap = two_sample.ks(new, old)
    fell = _beyond(gap, SCORE_WATCH) and median(new) < median(old)
    return DriftMeasure(
        name="top_score",
        against="earlier",
        gap=gap,
        verdict=_verdict(fell, False),
        says=f"the best cosine of half of the queries is above {median(new):.2f}, it was {median(old):.2f}: "
        + _chance(gap, fell),
        do="the best finds are worse than before: other questions, documents that were deleted, or the index; "
        "see out_of_domain and recall"
        if fell
        else "",
    )


# ---------------------------------------------------------------- in common


def _untold(name: Name, against: Against, says: str) -> DriftMeasure:
    return DriftMeasure(name=name, against=against, gap=None, verdict=None, says=says, do="")


def _verdict(watch: bool, broken: bool) -> Verdict:
    return "broken" if broken else "watch" if watch else "healthy"


def _beyond(gap: Gap, limit: float) -> bool:
    return gap.value >= limit and gap.p is not None and gap.p <= SURE


def _chance(gap: Gap, beyond: bool) -> str:
    p = math.nan if gap.p is None else gap.p
    if p > SURE:
        return f"as far as chance goes (p {p:.2f})"
    return f"beyond chance (p {p:.3f})" + ("" if beyond else ", and little")


def _rows(some: Sequence[WindowedQuery]) -> Vectors:
    return np.stack([asked.vector for asked in some]).astype(np.float32)
