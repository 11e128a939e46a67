"""The weighted mean of two adapters, one of which was trained on from the other.

Such models lie in the same basin of the loss, and the mean of their weights ranks about as well as the mean of their
scores, at the cost of one model (Wortsman et al., "Model soups", ICML 2022).
"""

from collections.abc import Mapping

import torch

from service.embedder.reranker.adapter import DOWN, UP


def averaged(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], keep: float
) -> dict[str, torch.Tensor]:
    """`keep` of `before` and the rest of `after`.

    For LoRA layers the products B A are averaged, not the factors; the result are the best factors of the same rank
    (Eckart and Young 1936).
    """
    outcome = {
        name: torch.lerp(new.float(), before[name].float(), keep).to(new.dtype)
        for name, new in after.items()
        if not name.endswith((DOWN, UP))
    }
    for down in (name for name in after if name.endswith(DOWN)):
        up = down.removesuffix(DOWN) + UP
        new, old = (weights[up].float() @ weights[down].float() for weights in (after, before))
        left, singular, right = torch.linalg.svd(torch.lerp(new, old, keep), full_matrices=False)
        rank = after[down].shape[0]
        roots = singular[:rank].sqrt()
        outcome[up] = (left[:, :rank] * roots).to(after[up].dtype).contiguous()
        outcome[down] = (roots[:, None] * right[:rank]).to(after[down].dtype).contiguous()
    return outcome
