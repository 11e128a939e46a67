"""Two adapters of one origin become one, halfway between them.

Models that were trained on from the same one lie in the same basin, and the mean of their weights ranks about as well
as the mean of what they say, for the price of one (Wortsman et al., "Model soups", ICML 2022).
"""

from collections.abc import Mapping

import torch

from service.embedder.reranker.adapter import DOWN, UP


def mixed(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], keep: float
) -> dict[str, torch.Tensor]:
    """`keep` of the one and the rest of the other. What is mixed of LoRA are the products B A, not the two factors:
    their best factors of the same rank (Eckart and Young 1936) are what it comes to."""
    outcome = {
        name: torch.lerp(now.float(), before[name].float(), keep).to(now.dtype)
        for name, now in after.items()
        if not name.endswith((DOWN, UP))
    }
    for down in (name for name in after if name.endswith(DOWN)):
        up = down.removesuffix(DOWN) + UP
        now, then = (of[up].float() @ of[down].float() for of in (after, before))
        left, strengths, right = torch.linalg.svd(torch.lerp(now, then, keep), full_matrices=False)
        rank = after[down].shape[0]
        halves = strengths[:rank].sqrt()
        outcome[up] = (left[:, :rank] * halves).to(after[up].dtype).contiguous()
        outcome[down] = (halves[:, None] * right[:rank]).to(after[down].dtype).contiguous()
    return outcome
