"""What the loss of a step is made of, against formulas worked out by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from service.embedder.training.contrastive_loss import ContrastiveLoss


def unit(*rows: list[float]) -> torch.Tensor:
    return functional.normalize(torch.tensor(rows), dim=1)


def loss(vectors: list[torch.Tensor], counted: list[list[float]], teacher: list[list[float]], taught: float) -> float:
    labels = torch.hstack([torch.tensor(teacher), torch.tensor(counted)])
    return float(ContrastiveLoss(nn.Identity(), 0.5, taught).of_vectors(vectors, labels))


def test_contrast_is_the_cross_entropy_of_the_answer_among_what_counts() -> None:
    queries, answers = unit([1.0, 0.0], [0.0, 1.0]), unit([1.0, 0.0], [1.0, 1.0])
    half = math.sqrt(0.5)
    first = math.log(1 + math.exp((half - 1) / 0.5))
    second = math.log(1 + math.exp(-half / 0.5))
    unread = [[math.nan], [math.nan]]
    both = loss([queries, answers], [[1, 1], [1, 1]], unread, 1.0)
    assert both == pytest.approx((first + second) / 2, rel=1e-5)
    assert loss([queries, answers], [[1, 1], [0, 1]], unread, 1.0) == pytest.approx(first / 2, rel=1e-5)
    assert loss([queries, answers], [[1, 0], [0, 1]], unread, 1.0) == pytest.approx(0, abs=1e-6)


def test_what_the_teacher_would_say_costs_nothing_and_what_it_has_not_read_counts_as_nothing() -> None:
    queries, answers, wrong = unit([1.0, 0.3], [0.0, 1.0]), unit([1.0, 0.0], [1.0, 0.0]), unit([0.2, 1.0], [0.2, 1.0])
    agreeing = [
        float(queries[0] @ of[0]) / 0.5 + 7.0 for of in (answers, wrong)
    ]  # a softmax does not see what is added
    alone = [[1.0, 0, 0, 0], [0, 1.0, 0, 0]]

    def taught(*teacher: list[float]) -> float:
        return loss([queries, answers, wrong], alone, list(teacher), 0.7)

    assert taught(agreeing, [math.nan] * 2) == pytest.approx(0, abs=1e-5)
    other = functional.softmax(torch.tensor([0.0, 3.0]), dim=0)
    ours = functional.log_softmax(torch.tensor(agreeing), dim=0)
    expected = 0.7 * float(functional.kl_div(ours, other, reduction="sum"))
    assert taught([0.0, 3.0], [math.nan] * 2) == pytest.approx(expected, rel=1e-4)
    assert taught([math.nan] * 2, [math.nan] * 2) == 0
