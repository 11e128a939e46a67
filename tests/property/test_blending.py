"""Laws of the blend: monotone, bounded, and an early exit that nobody can tell from reading everything."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.search import rerank_blend
from service.search.rerank_blend import AGREEMENT_SAMPLE, FULL_AGREEMENT, RerankBlend, trusted_weight

LOWEST, HIGHEST = rerank_blend.MIN_LOG_ODDS, rerank_blend.MAX_LOG_ODDS
PROBABILITY = st.floats(0, 1)
WEIGHT = st.floats(0, 1)
PAIRS = st.lists(st.tuples(st.floats(0, 2), PROBABILITY), min_size=1, max_size=40).map(
    lambda pairs: sorted(pairs, key=lambda pair: -pair[0])
)
"""First-stage score and relevance of each hit, in the order of the first stage."""


def ranking(blend: RerankBlend, relevance: list[float]) -> list[int]:
    return sorted(range(len(relevance)), key=lambda at: (-blend.score(at, relevance[at]), at))


@given(PAIRS, WEIGHT, st.integers(1, 45), st.integers(1, 8))
def test_an_early_exit_gives_the_first_k_of_reading_everything(
    pairs: list[tuple[float, float]], weight: float, k: int, portion: int
) -> None:
    relevance = [one for _, one in pairs]
    blend = RerankBlend([first for first, _ in pairs], weight)
    read = 0
    while blend.required(relevance[:read], k) > read:
        read = min(read + portion, len(pairs))
    assert ranking(blend, relevance[:read])[:k] == ranking(blend, relevance)[:k]


@given(PAIRS, WEIGHT, st.data())
def test_more_relevance_never_costs_a_place(
    pairs: list[tuple[float, float]], weight: float, data: st.DataObject
) -> None:
    relevance = [one for _, one in pairs]
    blend = RerankBlend([first for first, _ in pairs], weight)
    favoured = data.draw(st.integers(0, len(pairs) - 1))
    raised = [*relevance]
    raised[favoured] = data.draw(st.floats(relevance[favoured], 1))
    assert ranking(blend, raised).index(favoured) <= ranking(blend, relevance).index(favoured)


@given(PAIRS, WEIGHT)
def test_scores_are_shares_and_the_unread_stay_behind_in_order(pairs: list[tuple[float, float]], weight: float) -> None:
    blend = RerankBlend([first for first, _ in pairs], weight)
    scores = [blend.score(at, one) for at, (_, one) in enumerate(pairs)]
    assert all(0 <= score <= 1 + 1e-9 for score in scores)
    assert all(0 <= blend.share(one) <= score + 1e-9 for score, (_, one) in zip(scores, pairs, strict=True))
    half = len(pairs) // 2
    floor = min(scores[:half], default=1.0)
    behind = [blend.unread_score(first, floor) for first, _ in pairs[half:]]
    assert behind == sorted(behind, reverse=True)
    assert all(score <= floor for score in behind)


@given(PAIRS)
def test_a_weight_of_nothing_and_of_everything(pairs: list[tuple[float, float]]) -> None:
    first, relevance = [one for one, _ in pairs], [one for _, one in pairs]
    assert ranking(RerankBlend(first, 0.0), relevance) == list(range(len(first)))
    by_relevance = [relevance[at] for at in ranking(RerankBlend(first, 1.0), relevance)]
    assert all(above >= below - 0.05 for above, below in pairwise(by_relevance))  # beyond 0.95 all are alike


@pytest.mark.parametrize(
    ("log_odds", "share"), [(-40, 0), (LOWEST, 0), (-4.5, 0.25), (-2, 0.5), (0, 0.7), (HIGHEST, 1), (40, 1)]
)
def test_a_reranker_counts_by_its_log_odds(log_odds: float, share: float) -> None:
    probability = 1 / (1 + math.exp(-log_odds))
    assert RerankBlend([1.0], 0.6).share(probability) == pytest.approx(0.6 * share, abs=1e-6)


@given(PAIRS, WEIGHT, st.lists(PROBABILITY, max_size=9))
def test_a_reranker_is_believed_by_the_first_hits_alone_and_never_beyond_its_weight(
    pairs: list[tuple[float, float]], weight: float, more: list[float]
) -> None:
    first, relevance = [one for one, _ in pairs], [one for _, one in pairs]
    found = trusted_weight(first, relevance, weight)
    assert 0 <= found <= weight
    if len(pairs) >= AGREEMENT_SAMPLE:
        assert trusted_weight([*first, *[0.0] * len(more)], [*relevance, *more], weight) == found
    if len(pairs) < rerank_blend.MIN_AGREEMENT_SAMPLE or weight == 1.0:
        assert found == weight


def test_who_agrees_is_believed_and_who_contradicts_is_not() -> None:
    first = [1 - 0.02 * at for at in range(AGREEMENT_SAMPLE)]
    rising = [1 / (1 + math.exp(-(2 - 0.1 * at))) for at in range(AGREEMENT_SAMPLE)]
    assert trusted_weight(first, rising, 0.6) == 0.6
    assert trusted_weight(first, rising[::-1], 0.6) == 0.0
    equal = [0.3] * AGREEMENT_SAMPLE
    assert trusted_weight(first, equal, 0.6) == 0.6, "there is nothing to measure by"
    assert trusted_weight(equal, rising, 0.6) == 0.6
    noise = np.random.default_rng(7).uniform(0.1, 0.9, AGREEMENT_SAMPLE).tolist()
    log_odds = [math.log(one / (1 - one)) for one in noise]
    agreement = float(np.corrcoef(first, log_odds)[0, 1])
    assert trusted_weight(first, noise, 0.6) == pytest.approx(0.6 * min(1, max(0, agreement / FULL_AGREEMENT)))
