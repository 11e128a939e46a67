"""Relevance: what stands out among the candidates, whatever level a reranker's scores have."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.relevance import MIN_SAMPLE, SAMPLE, RelevanceCalibration

CALIBRATION = RelevanceCalibration(slope=1.0, offset=-4.5, base=-6.0)
LOG_ODDS = st.lists(st.floats(-7, 3), min_size=1, max_size=60)


@given(LOG_ODDS)
def test_it_is_a_probability_that_rises_with_the_score(log_odds: list[float]) -> None:
    found = CALIBRATION.probabilities(log_odds)
    assert all(0 <= one <= 1 for one in found)
    by_score = [one for _, one in sorted(zip(log_odds, found, strict=True))]
    assert all(low <= high for low, high in pairwise(by_score))


@given(st.lists(st.floats(-7, 3), min_size=MIN_SAMPLE, max_size=40), st.floats(-2, 2))
def test_the_level_of_a_collection_does_not_matter(log_odds: list[float], shift: float) -> None:
    moved = CALIBRATION.probabilities([one + shift for one in log_odds])
    assert moved == pytest.approx(CALIBRATION.probabilities(log_odds), abs=1e-9)


def test_only_what_stands_out_is_relevant() -> None:
    found = CALIBRATION.probabilities([-6.0] * 15 + [0.0] + [-5.5] * 14)
    assert found[15] > 0.8 > 0.05 > max(found[:15])
    assert max(CALIBRATION.probabilities([2.5] * 30)) < 0.05  # a reranker that finds everything relevant


def test_what_is_read_after_the_sample_changes_nothing() -> None:
    first = [-6.0 + 0.2 * at for at in range(SAMPLE)]
    assert CALIBRATION.probabilities([*first, 3.0, 3.0])[:SAMPLE] == CALIBRATION.probabilities(first)


@pytest.mark.parametrize("others", range(MIN_SAMPLE - 1))
def test_few_hits_are_judged_by_the_usual_level(others: int) -> None:
    assert CALIBRATION.probabilities([0.0] + [-6.5] * others)[0] > 0.8
    assert max(CALIBRATION.probabilities([-6.0] * (others + 1))) < 0.05
