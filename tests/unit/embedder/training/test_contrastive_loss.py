"""The losses, against their formulas worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from service.embedder.training.contrastive_loss import distillation, info_nce


def unit(*rows: list[float]) -> torch.Tensor:
    return functional.normalize(torch.tensor(rows), dim=1)


def test_info_nce_is_the_cross_entropy_of_the_right_passage() -> None:
    queries = unit([1.0, 0.0], [0.0, 1.0])
    passages = unit([1.0, 0.0], [1.0, 1.0], [-1.0, 0.0])
    negatives = torch.tensor([[False, True, True], [True, False, True]])
    half = math.sqrt(0.5)
    first = math.log(1 + math.exp((half - 1) / 0.5) + math.exp(-2 / 0.5))
    second = math.log(1 + 2 * math.exp(-half / 0.5))
    assert float(info_nce(queries, passages, negatives, 0.5)) == pytest.approx((first + second) / 2, rel=1e-5)


def test_what_is_neither_right_nor_rival_takes_no_part() -> None:
    queries, passages = unit([1.0, 0.2]), unit([1.0, 0.0], [1.0, 0.1])
    nobody = info_nce(queries, passages, torch.tensor([[False, False]]), 0.05)
    assert float(nobody) == pytest.approx(0.0, abs=1e-6)
    assert float(info_nce(queries, passages, torch.tensor([[False, True]]), 0.05)) > 0.5


def test_what_the_teacher_would_say_costs_nothing() -> None:
    queries = unit([1.0, 0.3])
    passages = unit([1.0, 0.0], [0.2, 1.0]).unsqueeze(0)
    agreeing = (torch.einsum("nd,nkd->nk", queries, passages) / 0.1) + 7.0  # a softmax does not see what is added
    assert float(distillation(queries, passages, agreeing, 0.1)) == pytest.approx(0.0, abs=1e-6)
    assert float(distillation(queries, passages, -agreeing, 0.1)) > 0.1


def test_queries_that_the_teacher_did_not_read_are_left_out() -> None:
    queries = unit([1.0, 0.3], [0.0, 1.0])
    passages = torch.stack([unit([1.0, 0.0], [0.2, 1.0])] * 2)
    labels = torch.tensor([[1.0, 0.0], [math.nan, math.nan]])
    both = distillation(queries, passages, labels, 0.1)
    assert float(both) == pytest.approx(float(distillation(queries[:1], passages[:1], labels[:1], 0.1)))
    nobody = distillation(queries, passages, torch.full((2, 2), math.nan), 0.1)
    assert float(nobody) == 0.0
