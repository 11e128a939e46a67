"""The loss of one contrastive step, out of those of sentence-transformers."""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim, pairwise_cos_sim
from torch import nn


class ContrastiveLoss(nn.Module):
    """InfoNCE over the passages of a step, and where a teacher read them, the divergence from its distribution.

    Soft labels after Wang et al., "GPL: Generative Pseudo Labeling", NAACL 2022, who match margins; with a softmax the
    scale of the teacher's logits matters less. `taught`: their weight.
    """

    def __init__(self, model: nn.Module, temperature: float, taught: float) -> None:
        super().__init__()
        self.model = model
        self.contrast = MultipleNegativesRankingLoss(model, 1 / temperature, self._similarity)
        self.divergence = DistillKLDivLoss(
            model, pairwise_cos_sim, student_temperature=temperature, teacher_temperature=1.0
        )
        self.weight = taught / temperature**2  # which the library multiplies by
        self._counted = torch.tensor(0)

    def forward(self, columns: Iterable[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """`columns`: queries, their answers, their wrong passages. `labels` [n, k + n k]: see `of_vectors`."""
        return self.of_vectors([self.model(features)["sentence_embedding"].float() for features in columns], labels)

    def of_vectors(self, vectors: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """`vectors`: of n queries, and of k passages for each: the answers [n, d], then wrong ones.

        `labels` [n, k + n k]: a teacher's logits of the k passages, not finite for a query that it has not read; then 1
        for each passage of the step that is right or a negative. What is neither does not count.
        """
        shown = len(vectors) - 1
        teacher, self._counted = labels[:, :shown], labels[:, shown:].bool()
        with torch.autocast(labels.device.type, enabled=False):
            loss: torch.Tensor = self.contrast.compute_loss_from_embeddings(vectors, None)
            known = torch.isfinite(teacher).all(dim=1)
            if self.weight and shown > 1 and bool(known.any()):
                read = [of_column[known] for of_column in vectors]
                loss = loss + self.weight * self.divergence.compute_loss_from_embeddings(read, teacher[known])
        return loss

    def _similarity(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        cosines: torch.Tensor = cos_sim(queries, passages)
        return cosines.masked_fill(~self._counted, float("-inf"))
