"""The last layer, computed for the first token alone."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from service.embedder.reranker import first_token
from service.embedder.reranker.first_token import FirstTokenLayer

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = torch.randint(2, 50, (3, 9))
MASK = torch.ones_like(IDS)
MASK[1, 5:] = 0


def bert() -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=1, **SIZES))


def roberta() -> PreTrainedModel:
    return RobertaForSequenceClassification(RobertaConfig(vocab_size=50, num_labels=1, **SIZES))


def distilbert() -> PreTrainedModel:
    config = DistilBertConfig(vocab_size=50, num_labels=1, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
    return DistilBertForSequenceClassification(config)


class Mean(nn.Module):
    """Reads all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = bert().bert

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.bert(**inputs).last_hidden_state
        return hidden.mean(1)


def computed(network: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        output = network(input_ids=IDS, attention_mask=MASK)
        return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("make", "narrowed"), [(bert, True), (roberta, True), (distilbert, False), (Mean, False)])
def test_the_output_stays_whatever_the_network_reads(
    make: Callable[[], nn.Module], narrowed: bool, attention: str
) -> None:
    torch.manual_seed(3)
    network = make().eval()
    for module in network.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation(attention)
    before, changed = computed(network), copy.deepcopy(network)
    assert first_token.narrow(changed, lambda: computed(changed), 1e-5) == narrowed
    assert any(isinstance(module, FirstTokenLayer) for module in changed.modules()) == narrowed
    torch.testing.assert_close(computed(changed), before, atol=1e-5, rtol=1e-5)
