"""Contrastive losses over unit vectors."""

import torch
from torch.nn import functional


def info_nce(
    queries: torch.Tensor, passages: torch.Tensor, negatives: torch.Tensor, temperature: float
) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018): cross-entropy of the right passage among the negatives of each query.

    `queries` [n, d]; `passages` [m, d], of which the first n are the right ones in order; `negatives` [n, m], true for
    wrong answers to a query. A passage that is neither right nor a negative does not count.
    """
    scores = queries @ passages.T / temperature
    right = torch.eye(len(queries), len(passages), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(~(negatives | right), float("-inf"))
    return functional.cross_entropy(scores, torch.arange(len(queries), device=scores.device))


def distillation(
    queries: torch.Tensor, passages: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Kullback-Leibler divergence of our distribution over a few passages of each query from a cross-encoder's.

    `queries` [n, d]; `passages` [n, k, d]; `teacher` [n, k]: logits, NaN for queries without any. Soft labels after
    Wang et al., "GPL: Generative Pseudo Labeling", NAACL 2022, who match margins; with a softmax the scale of the
    teacher's logits matters less.
    """
    known = torch.isfinite(teacher).all(dim=1)
    if not bool(known.any()):
        return queries.new_zeros(())
    ours = torch.einsum("nd,nkd->nk", queries[known], passages[known]) / temperature
    theirs = functional.softmax(teacher[known], dim=1)
    return functional.kl_div(functional.log_softmax(ours, dim=1), theirs, reduction="batchmean")
