"""Losses over vectors of length 1: what belongs together is drawn together, what does not is pushed apart."""

import torch
from torch.nn import functional


def info_nce(queries: torch.Tensor, passages: torch.Tensor, rivals: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018): which of the passages belongs to the query?

    `queries` [n, d]; `passages` [m, d], of which the first n belong to the queries in order; `rivals` [n, m], true
    where a passage is a wrong answer to a query. What is neither the right passage nor a rival takes no part.
    """
    scores = queries @ passages.T / temperature
    right = torch.eye(len(queries), len(passages), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(~(rivals | right), float("-inf"))
    return functional.cross_entropy(scores, torch.arange(len(queries), device=scores.device))


def distilled(queries: torch.Tensor, passages: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence from a cross-encoder's distribution over a few passages of each query to ours.

    `queries` [n, d]; `passages` [n, k, d]; `teacher` [n, k]: logits, NaN where there are none for a query. Softer
    labels than right and wrong, after Wang et al., "GPL: Generative Pseudo Labeling", NAACL 2022, who match margins;
    over a softmax the scale of the teacher's logits matters less.
    """
    known = torch.isfinite(teacher).all(dim=1)
    if not bool(known.any()):
        return queries.new_zeros(())
    ours = torch.einsum("nd,nkd->nk", queries[known], passages[known]) / temperature
    theirs = functional.softmax(teacher[known], dim=1)
    return functional.kl_div(functional.log_softmax(ours, dim=1), theirs, reduction="batchmean")
