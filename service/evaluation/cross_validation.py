"""Which of many settings is best, and what that is worth on queries that it was not chosen on. Pure.

k-fold cross-validation (Stone 1974): each query is scored with the setting that is best on the queries of all other
folds, so that the choice itself is judged and not its luck. `scores` has shape [settings, queries].
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.evaluation.ranking_metrics import MeanInterval, paired_bootstrap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TIE = 1e-9
"""Means that differ by less are equal: the earlier setting is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """`chosen`: the best setting on all queries. `before`, `after`: means over the queries, held out."""

    chosen: int
    before: float
    after: float
    gain: MeanInterval

    @property
    def better(self) -> bool:
        """Whether the gain is beyond the noise."""
        return self.gain.low > 0


def select_setting(scores: Floats, present: int, folds: int, seed: int = 0) -> Selection:
    """The best setting against the one in use (`present`). Of equally good settings the first is taken."""
    before, after = scores[present], held_out_scores(scores, split_folds(scores.shape[1], folds, seed))
    return Selection(
        chosen=best_setting(scores),
        before=float(before.mean()),
        after=float(after.mean()),
        gain=paired_bootstrap(list(before), list(after), seed=seed),
    )


def split_folds(queries: int, folds: int, seed: int) -> Ints:
    """The fold of each query, in folds as equal as can be. ValueError where there are fewer queries than folds."""
    if not 2 <= folds <= queries:
        raise ValueError(f"{queries} queries cannot be split into {folds} folds")
    return np.random.default_rng(seed).permutation(np.arange(queries) % folds)


def held_out_scores(scores: Floats, folds: Ints) -> Floats:
    """For each query, the score of the setting that is best on the other folds; shape [queries]."""
    after = np.empty(scores.shape[1])
    for fold in np.unique(folds):
        held_out = folds == fold
        after[held_out] = scores[best_setting(scores[:, ~held_out]), held_out]
    return after


def best_setting(scores: Floats) -> int:
    """The first setting whose mean no other exceeds."""
    means = scores.mean(axis=1)
    return int(np.flatnonzero(means >= means.max() - _TIE)[0])
