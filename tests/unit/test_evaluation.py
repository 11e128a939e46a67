"""Our measures against `ir_measures` (trec_eval underneath), and by hand."""

import random

import ir_measures
import pytest
from ir_measures import RR, R, nDCG

from service.evaluation import ndcg, percentile, recall, reciprocal_rank


def test_against_trec_eval_on_random_rankings() -> None:
    chance = random.Random(7)
    documents = [f"d{number}" for number in range(300)]
    qrels, run, rankings = {}, {}, {}
    for number in range(40):
        query = f"q{number}"
        qrels[query] = {document: chance.randint(0, 3) for document in chance.sample(documents, 30)}
        rankings[query] = chance.sample(documents, 150)
        run[query] = {document: float(-rank) for rank, document in enumerate(rankings[query])}
    measures = [nDCG @ 10, R @ 100, RR @ 10]
    seen = 0
    for metric in ir_measures.iter_calc(measures, qrels, run):
        ours = {
            nDCG @ 10: lambda query: ndcg(rankings[query], qrels[query], 10),
            R @ 100: lambda query: recall(rankings[query], qrels[query], 100),
            RR @ 10: lambda query: reciprocal_rank(rankings[query], qrels[query], 10),
        }[metric.measure](metric.query_id)
        assert ours == pytest.approx(metric.value, abs=1e-9), (metric.measure, metric.query_id)
        seen += 1
    assert seen == 120


def test_ndcg_by_hand() -> None:
    assert ndcg(["a", "b"], {"a": 1}, 10) == 1.0
    assert ndcg(["b", "a"], {"a": 1}, 10) == pytest.approx(0.6309, abs=1e-4)
    assert ndcg(["b"], {"a": 1}, 10) == 0.0
    assert ndcg(["b"], {"b": 0}, 10) == 0.0


def test_percentile_is_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 1.0)) == (50.0, 95.0, 100.0)
