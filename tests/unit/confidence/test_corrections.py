"""What real queries change of a calibration: as much as they show, and nothing where they show nothing."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from service.confidence.corrections import learn_correction
from service.confidence.fit import Labels, auroc
from service.core.logistic import Floats, Logistic
from service.core.versions import UNCORRECTED, Calibration

DIMENSIONS = 16


def queries(each: int, *, seed: int = 0, shift: float = 0.0, apart: float = 0.0) -> tuple[Floats, Floats, Labels]:
    """Log-odds that are too high by `shift`, and vectors whose first component tells the kinds apart."""
    chance = np.random.default_rng(seed)
    answered = np.arange(2 * each) < each
    log_odds = np.where(answered, 2.0, -2.0) + chance.normal(size=2 * each) * 2 + shift
    vectors = (
        chance.normal(size=(2 * each, DIMENSIONS)) + apart * np.where(answered, 1, -1)[:, None] * np.eye(DIMENSIONS)[0]
    )
    return log_odds, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), answered


def test_what_vectors_tell_is_learnt() -> None:
    log_odds, vectors, answered = queries(100, seed=1, apart=3.0)
    learnt = learn_correction(*queries(30, apart=3.0))
    assert learnt is not None
    corrected = learnt[0].log_odds(np.column_stack([log_odds, vectors]))
    assert auroc(corrected[answered], corrected[~answered]) > auroc(log_odds[answered], log_odds[~answered]) + 0.02


def test_a_shift_is_taken_back_and_the_more_queries_the_surer() -> None:
    few, many = (learn_correction(*queries(each, shift=3.0)) for each in (10, 200))
    assert few is not None
    assert many is not None
    assert many[1] < few[1] < UNCORRECTED
    log_odds, vectors, answered = queries(200, seed=1, shift=3.0)
    corrected = many[0].log_odds(np.column_stack([log_odds, vectors]))
    assert abs(np.mean((corrected > 0) == answered)) > abs(np.mean((log_odds > 0) == answered))


def test_what_does_not_help_is_not_learnt_and_few_queries_change_little() -> None:
    assert learn_correction(*queries(100, seed=3)) is None
    log_odds, vectors, answered = queries(100, seed=2)
    learnt = learn_correction(log_odds[95:105], vectors[95:105], ~answered[95:105])  # five of each, all wrong
    assert learnt is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_probabilities_are_for_even_odds_whatever_the_share_of_answered_queries(share: float) -> None:
    log_odds, vectors, answered = queries(200, shift=3.0)
    kept = np.r_[np.arange(round(200 * share)), 200 + np.arange(round(200 * (1 - share)))]
    learnt = learn_correction(log_odds[kept], vectors[kept], answered[kept])
    assert learnt is not None
    assert learnt[0].bias == pytest.approx(-3.0, abs=1.0)


def test_an_interval_is_around_its_value_wide_at_the_border_and_narrow_far_from_it() -> None:
    line = Logistic(weights=(20.0,), bias=-10.0)
    calibration = Calibration(rows=100, learnt_at=datetime(2026, 3, 1, tzinfo=UTC), dense=line)
    widths = []
    for cosine in (0.1, 0.5, 0.9):
        told = calibration.estimate(cosine, None, np.zeros(2, np.float32))
        assert told.in_domain is not None
        assert told.interval is not None
        assert 0 <= told.interval.low <= told.in_domain <= told.interval.high <= 1
        widths.append(told.interval.high - told.interval.low)
    assert widths[1] > 0.9 > 0.1 > max(widths[0], widths[2])
    corrected = replace(calibration, correction=Logistic(weights=(1.0, 0.0, 2.0), bias=0.0), deviation=0.5)
    told = corrected.estimate(0.5, None, np.array([0, 1], np.float32))
    assert told.in_domain == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert told.interval is not None
    assert told.interval.high - told.interval.low < widths[1]
