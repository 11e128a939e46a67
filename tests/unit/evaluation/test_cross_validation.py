import numpy as np
import pytest

from service.evaluation.cross_validation import best_setting, held_out_scores, select_setting, split_folds


def test_folds_are_as_equal_as_can_be_and_the_same_every_time() -> None:
    folds = split_folds(13, 5, seed=0)
    assert sorted(np.bincount(folds)) == [2, 2, 3, 3, 3]
    assert (split_folds(13, 5, seed=0) == folds).all()
    with pytest.raises(ValueError, match="2 queries"):
        split_folds(2, 3, seed=0)


def test_each_query_is_answered_with_what_is_best_on_the_others() -> None:
    scores = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    folds = np.array([0, 1, 0, 1])
    assert list(held_out_scores(scores, folds)) == [0.0, 0.0, 1.0, 0.0], "on 0 and 2 both are equal: the first is taken"


def test_of_equally_good_settings_the_first_is_taken() -> None:
    assert best_setting(np.array([[0.5, 0.5], [1.0, 0.0], [0.4, 0.6 + 1e-12]])) == 0


def test_a_better_setting_is_chosen_with_its_gain() -> None:
    chance = np.random.default_rng(1)
    present = chance.uniform(0.2, 0.6, 200)
    found = select_setting(np.array([present, present - 0.1, present + 0.2]), 0, 5)
    assert (found.chosen, found.better) == (2, True)
    assert found.after - found.before == pytest.approx(0.2)
    assert found.gain.low == pytest.approx(0.2)


def test_the_luckiest_of_many_settings_is_no_gain() -> None:
    """On the queries that it was chosen on it looks like one; on others it is none."""
    chance = np.random.default_rng(2)
    scores = chance.uniform(size=(70, 100))
    found = select_setting(scores, 0, 5)
    assert scores[found.chosen].mean() > found.before + 0.05
    assert not found.better


def test_nothing_better_than_what_is_in_use_gains_exactly_nothing() -> None:
    present = np.random.default_rng(3).uniform(0.5, 1.0, 60)
    found = select_setting(np.array([present, present - 0.3]), 0, 5)
    assert (found.chosen, found.gain.mean, found.better) == (0, 0.0, False)
