"""Our measures against `ir_measures` (trec_eval underneath) and scipy, and by hand."""

import math
import random
from functools import partial
from statistics import fmean

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG
from scipy import stats

from service.evaluation import ranking_metrics
from service.evaluation.ranking_metrics import EvaluatedQuery, MeanInterval


def test_against_trec_eval_on_random_rankings() -> None:
    chance = random.Random(7)
    documents = [f"d{number}" for number in range(300)]
    qrels, run, rankings = {}, {}, {}
    for number in range(40):
        query = f"q{number}"
        qrels[query] = {document: chance.randint(0, 3) for document in chance.sample(documents, 30)}
        rankings[query] = chance.sample(documents, 150)
        run[query] = {document: float(-rank) for rank, document in enumerate(rankings[query])}
    ours = {
        nDCG @ 10: partial(ranking_metrics.ndcg, k=10),
        R @ 100: partial(ranking_metrics.recall, k=100),
        RR @ 10: partial(ranking_metrics.reciprocal_rank, k=10),
    }
    theirs = list(ir_measures.iter_calc(list(ours), qrels, run))
    assert len(theirs) == 120
    for metric in theirs:
        found = ours[metric.measure](rankings[metric.query_id], qrels[metric.query_id])
        assert found == pytest.approx(metric.value, abs=1e-9), (metric.measure, metric.query_id)
    means = ir_measures.calc_aggregate(list(ours), qrels, run)
    queries = [EvaluatedQuery(ranking=rankings[query], grades=qrels[query], milliseconds=1.0) for query in run]
    metrics = ranking_metrics.mean_metrics(queries)
    assert metrics.ndcg_at_10 == pytest.approx(means[nDCG @ 10])
    assert metrics.recall_at_100 == pytest.approx(means[R @ 100])
    assert metrics.mrr_at_10 == pytest.approx(fmean(ours[RR @ 10](query.ranking, query.grades) for query in queries))


def test_ndcg_by_hand() -> None:
    assert ranking_metrics.ndcg(["a", "b"], {"a": 1}, 10) == 1.0
    assert ranking_metrics.ndcg(["b", "a"], {"a": 1}, 10) == pytest.approx(0.6309, abs=1e-4)
    assert ranking_metrics.ndcg(["b"], {"a": 1}, 10) == 0.0
    assert ranking_metrics.ndcg(["b"], {"b": 0}, 10) == 0.0


def test_percentile_is_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [ranking_metrics.percentile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]


def test_overlap_by_hand() -> None:
    assert ranking_metrics.overlap_at_k("abcd", "badx", 2) == 1.0
    assert ranking_metrics.overlap_at_k("abcd", "xbya", 4) == 0.5
    assert ranking_metrics.overlap_at_k("abcd", "a", 4) == ranking_metrics.overlap_at_k("a", "abcd", 4) == 0.25
    assert ranking_metrics.overlap_at_k("", "", 10) == 1.0
    assert ranking_metrics.overlap_at_k("a", "", 10) == 0.0


def test_kendall_tau_against_scipy() -> None:
    chance = random.Random(2)
    documents = [f"d{number}" for number in range(30)]
    for _ in range(50):
        a, b = chance.sample(documents, 20), chance.sample(documents, 20)
        common = [document for document in a if document in b]
        expected = stats.kendalltau([a.index(one) for one in common], [b.index(one) for one in common]).statistic
        assert ranking_metrics.kendall_tau(a, b) == pytest.approx(expected, abs=1e-12)


def test_kendall_tau_where_there_is_no_order_to_compare() -> None:
    assert ranking_metrics.kendall_tau("abc", "abc") == 1.0
    assert ranking_metrics.kendall_tau("abc", "cba") == -1.0
    assert math.isnan(ranking_metrics.kendall_tau("abc", "cxy"))
    assert math.isnan(ranking_metrics.kendall_tau("", ""))


def test_the_interval_is_the_same_every_time_and_wider_where_more_confidence_is_asked() -> None:
    values = [float(value) for value in range(20)]
    assert ranking_metrics.bootstrap(values) == ranking_metrics.bootstrap(values)
    wide, narrow = (ranking_metrics.bootstrap(values, confidence=confidence) for confidence in (0.99, 0.8))
    assert wide.high > narrow.high


def test_equal_values_have_no_difference() -> None:
    assert ranking_metrics.paired_bootstrap([0.1, 0.9, 0.4], [0.1, 0.9, 0.4]) == MeanInterval(
        mean=0.0, low=0.0, high=0.0
    )
    assert ranking_metrics.bootstrap([0.4]) == MeanInterval(mean=0.4, low=0.4, high=0.4)


def test_pairing_removes_the_spread_of_the_queries() -> None:
    chance = np.random.default_rng(6)
    old = chance.uniform(size=100)
    assert ranking_metrics.paired_bootstrap(old.tolist(), (old - 0.01).tolist()).high < 0


def test_draws_are_made_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=50).tolist()
    whole = ranking_metrics.bootstrap(values, resamples=2_000)
    monkeypatch.setattr(ranking_metrics, "_DRAWN_AT_ONCE", 777)
    portioned = ranking_metrics.bootstrap(values, resamples=2_000)
    assert (portioned.low, portioned.high) == pytest.approx((whole.low, whole.high), abs=0.03)


@pytest.mark.parametrize("values", [[], [0.1, math.nan]])
def test_values_that_are_not_finite_have_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        ranking_metrics.bootstrap(values)
    with pytest.raises(ValueError, match="zip"):
        ranking_metrics.paired_bootstrap([1.0], [1.0, 2.0])
