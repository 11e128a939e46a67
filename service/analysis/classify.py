"""Labels for vectors: by the text of each label, or by examples. Pure; scikit-learn learns from the examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors
from service.core.vector_math import unit_rows

Floats = npt.NDArray[np.float64]
Method = Literal["zero_shot", "centroid", "logistic"]
FOLDS = 5
_REGULARISATION = 0.1
"""`C` of the logistic regression on standardised features, for few examples of many dimensions."""


@dataclass(frozen=True, slots=True)
class Classification:
    """Of each target its label, the score, and the difference to the next label: cosines, or probabilities by logistic
    regression. `accuracy`: by method, in cross-validation; None where a label has one example. `majority`: the accuracy
    of always giving the most frequent label."""

    method: Method
    labels: Sequence[str]
    scores: Sequence[float]
    margins: Sequence[float]
    accuracy: dict[str, float | None] = field(default_factory=dict)
    majority: float | None = None


def by_label_vectors(targets: Vectors, names: Sequence[str], vectors: Vectors) -> Classification:
    """Each target, [n, d] of length 1, gets the label whose text, [labels, d], is nearest to it."""
    return _best("zero_shot", names, targets @ vectors.T)


def by_examples(targets: Vectors, examples: Vectors, labels: Sequence[str]) -> Classification:
    """Labels learnt from the examples, [m, d] of length 1, by the method that does better in cross-validation.

    `centroid`: the nearest mean of a label's examples. `logistic`: multinomial logistic regression. The validation is
    stratified, with at most `FOLDS` folds.
    """
    from sklearn.model_selection import StratifiedKFold

    models: dict[Method, Callable[..., Floats]] = {"centroid": _by_centroid, "logistic": _by_regression}
    names, answers = np.unique(np.array(labels, object), return_inverse=True)
    counts = np.bincount(answers)
    accuracy: dict[str, float | None] = dict.fromkeys(models)
    if (folds := min(FOLDS, int(counts.min()))) > 1:
        split = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(examples, answers))
        for name, model in models.items():
            given = ((model(examples[at], answers[at], examples[rest]), answers[rest]) for at, rest in split)
            hits = sum(int((found.argmax(axis=1) == right).sum()) for found, right in given)
            accuracy[name] = round(hits / len(labels), 4)
    chosen = max(models, key=lambda name: accuracy[name] or 0.0)
    scores = models[chosen](examples, answers, targets) if len(targets) else np.zeros((0, len(names)))
    return _best(chosen, names.tolist(), scores, accuracy, round(float(counts.max()) / len(labels), 4))


def _by_centroid(examples: Vectors, answers: npt.NDArray[np.intp], targets: Vectors) -> Floats:
    means = np.stack([examples[answers == label].mean(axis=0) for label in range(answers.max() + 1)])
    return np.asarray(targets @ unit_rows(means).T, np.float64)


def _by_regression(examples: Vectors, answers: npt.NDArray[np.intp], targets: Vectors) -> Floats:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=_REGULARISATION, max_iter=100))
    return np.asarray(model.fit(examples, answers).predict_proba(targets), np.float64)


def _best(method: Method, names: Sequence[str], scores: npt.NDArray[np.floating], *known: Any) -> Classification:
    ordered = np.sort(scores, axis=1).astype(np.float64)
    labels = [names[at] for at in scores.argmax(axis=1)]
    margins = ordered[:, -1] - ordered[:, -2]
    return Classification(method, labels, ordered[:, -1].round(4).tolist(), margins.round(4).tolist(), *known)
