"""What two samples of queries say: measures, verdicts, and words for people."""

from dataclasses import replace

import numpy as np
import pytest

from service.core.ids import Vectors
from service.drift.assess import DRIFT_MEASURES, CollectionReference, DriftMeasure, DriftMeasureName, assess_drift
from service.drift.query_window import MIN_LATEST, WindowedQuery
from service.drift.two_sample import Estimate
from tests.unit_vectors import unit

DIMENSIONS = 32


def directions(seed: int, n: int, towards: int) -> Vectors:
    noise = np.random.default_rng(seed).normal(size=(n, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    return unit(np.eye(DIMENSIONS)[towards] * 0.8 + noise)


def queries(
    seed: int,
    n: int = 200,
    *,
    towards: int = 0,
    in_domain: float | None = 0.9,
    cosine: float | None = 0.6,
    unknown: int | None = 0,
) -> list[WindowedQuery]:
    chance = np.random.default_rng(seed + 1_000)
    return [
        WindowedQuery(
            vector=row.astype(np.float16),
            cosine=None if cosine is None else cosine + 0.05 * float(chance.normal()),
            in_domain=in_domain,
            text="",
            syntax="wishes",
            words=None if unknown is None else (unknown, 8),
        )
        for row in directions(seed, n, towards)
    ]


OWN = CollectionReference(vectors=directions(9, 300, 0), rare_words=[1] * 30 + [0] * 120, words=[10] * 150)
"""Two words of a hundred are said once."""
FILTERED = queries(1, in_domain=None, cosine=None, unknown=None)


def estimate(measure: DriftMeasure) -> Estimate:
    assert measure.estimate is not None
    return measure.estimate


def measured(
    latest: list[WindowedQuery], earlier: list[WindowedQuery], own: CollectionReference | None = OWN
) -> dict[DriftMeasureName, DriftMeasure]:
    measures = {one.name: one for one in assess_drift(latest, earlier, own).measures}
    assert tuple(measures) == DRIFT_MEASURES
    return measures


def test_unchanged_queries_are_healthy() -> None:
    assessment = assess_drift(queries(1), queries(2), OWN)
    verdicts = {one.name: one.verdict for one in assessment.measures}
    assert verdicts.pop("corpus_distance") is None
    assert set(verdicts.values()) == {"healthy"}
    assert assessment.verdict == "healthy"
    assert assessment.best_cosine == pytest.approx(0.6, abs=0.02)
    assert all(one.message and not one.advice for one in assessment.measures)


def test_other_queries_than_before_are_watched() -> None:
    measures = measured(queries(1, towards=1), queries(2))
    for measure in (measures["centroid_shift"], measures["mmd"]):
        assert measure.verdict == "watch"
        assert "beyond chance" in measure.message
        assert measure.advice
    assert measures["out_of_domain"].verdict == "healthy"


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.0, "healthy"), (0.1, "healthy"), (0.4, "watch"), (0.7, "broken"), (1.0, "broken")]
)
def test_the_share_of_out_of_domain_queries_is_judged(share: float, verdict: str) -> None:
    foreign = round(200 * share)
    latest = queries(1, foreign, in_domain=0.1) + queries(3, 200 - foreign) if foreign else queries(3)
    measure = measured(latest, queries(2))["out_of_domain"]
    assert (measure.verdict, estimate(measure).value) == (verdict, share)
    assert assess_drift(latest, queries(2), OWN).verdict == verdict


def test_unknown_words_are_judged_by_their_expected_share() -> None:
    more = measured(queries(1, unknown=1), queries(2))["unknown_words"]  # one of eight
    assert (estimate(more).value, more.verdict) == (0.125, "watch")
    small = replace(OWN, rare_words=[1, 2] * 75)  # 15 %, as is usual for a small collection
    assert measured(queries(1, unknown=1), queries(2), small)["unknown_words"].verdict == "healthy"


def test_falling_top_scores_are_watched_and_rising_ones_are_not() -> None:
    fell = measured(queries(1, cosine=0.5), queries(2, cosine=0.6))["top_score"]
    rose = measured(queries(1, cosine=0.7), queries(2, cosine=0.6))["top_score"]
    assert (fell.verdict, rose.verdict) == ("watch", "healthy")
    assert estimate(rose).value > 0.2


def test_a_small_change_of_many_queries_is_significant_and_healthy() -> None:
    latest = queries(1, 460) + queries(4, 40, towards=3)
    measure = measured(latest, queries(2, 500))["mmd"]
    assert (estimate(measure).p_value or 0.0) <= 0.01
    assert measure.verdict == "healthy"
    assert "little" in measure.message


def test_the_distance_to_the_documents_has_no_verdict() -> None:
    measures = [measured(queries(1, towards=at), queries(2))["corpus_distance"] for at in (0, 1)]
    assert [one.verdict for one in measures] == [None, None]
    assert estimate(measures[0]).value < estimate(measures[1]).value


@pytest.mark.parametrize(
    ("latest", "earlier", "own", "missing"),
    [
        (queries(1, MIN_LATEST - 1), queries(2), OWN, set(DRIFT_MEASURES)),
        (queries(1), [], OWN, {"centroid_shift", "mmd", "top_score"}),
        (queries(1), queries(2), None, {"unknown_words", "corpus_distance"}),
        (FILTERED, queries(2), OWN, {"out_of_domain", "unknown_words", "top_score"}),
    ],
    ids=["few", "none before", "nothing known of the collection", "all filtered"],
)
def test_a_measure_without_data_says_why(
    latest: list[WindowedQuery],
    earlier: list[WindowedQuery],
    own: CollectionReference | None,
    missing: set[DriftMeasureName],
) -> None:
    measures = measured(latest, earlier, own)
    assert {name for name, one in measures.items() if one.estimate is None} == missing
    assert all(measures[name].verdict is None and measures[name].message for name in missing)


def test_without_measures_there_is_no_verdict() -> None:
    assert assess_drift(queries(1, 10), [], None).verdict is None
    assert assess_drift(queries(1, 10, cosine=None), [], None).best_cosine is None
