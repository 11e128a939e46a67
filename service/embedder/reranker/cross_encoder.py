"""A cross-encoder in PyTorch, with little overhead.

`CrossEncoder.predict` of sentence-transformers rounds the output to 8 bits in bfloat16. This module calls the network
directly. Its output layer computes in float32, so that different passages do not get equal scores.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from torch import nn

from service.core.errors import ModelUnavailable
from service.embedder.models import device as devices
from service.embedder.models import packed_linear, pretrained, source
from service.embedder.models.padding import Padding
from service.embedder.models.pass_budget import pass_overhead
from service.embedder.models.text_tokenizer import Tokens
from service.embedder.reranker import adapter, first_token
from service.embedder.reranker.adapter import UNCALIBRATED, LoadedCrossEncoder
from service.embedder.reranker.pair_model import PORTION_ON_GPU, PairDescription, PairModel

log = logging.getLogger(__name__)

_PROBES = (("how to sort a list", pretrained.PROBE_TEXT), ("how", "to"))


class PackedCrossEncoder(PairModel):
    """Use `forward` from one thread."""

    def __init__(
        self, name: str, *, device: str, precision: str, threads: int, batch_tokens: int = 0, pack: bool = True
    ) -> None:
        """Blocks, for minutes if it downloads. ModelUnavailable with the reason if it cannot be loaded.

        `name`: see `CrossEncoderReranker`. `threads`: upper bound for one pass on CPU; 0: the default of torch.
        `batch_tokens`: padded tokens of one pass; 0: by device. `pack`: see `packed_linear`.
        """
        self.device = devices.choose(device)
        dtype = devices.precision(self.device, precision)
        loaded = adapter.load_reranker(name) if adapter.is_adapter(name) else _load_published(name, dtype)
        self.described = PairDescription(
            tokenizer=loaded.tokenizer.backend_tokenizer.to_str(),
            max_tokens=loaded.max_tokens,
            padding=Padding.of(loaded.tokenizer),
            calibration=loaded.calibration,
            relevance=loaded.relevance,
        )
        super().__init__(
            self.described,
            batch_tokens=batch_tokens or devices.batch_tokens(self.device),
            pass_overhead=pass_overhead(devices.batch_tokens(self.device)),
        )
        if self.device.type != "cpu":
            self.portion = PORTION_ON_GPU
        self._threads = threads or torch.get_num_threads()
        self.network = loaded.network.to(dtype)
        # With the 8 bits of bfloat16 log-odds of 5 are equal within 0.03, so the output layer computes in float32.
        outputs = [layer for layer in packed_linear.linear_layers(self.network) if layer[2].out_features == 1]
        for parent, attribute, layer in outputs[-1:]:
            setattr(parent, attribute, Float32Linear(layer))
        self.network.to(self.device).eval()
        tolerance = 1e-3 if dtype == torch.float32 else 0.25  # log-odds are a few units
        first = first_token.narrow(self.network, self._probe, tolerance)
        packed = (
            pack
            and self.device.type == "cpu"
            and packed_linear.pack_linear_layers(self.network, self._probe, tolerance)
        )
        runs = {
            "device": str(self.device),
            "precision": str(dtype).removeprefix("torch."),
            "packed": packed,
            "narrowed": first,
        }
        log.info("reranker loaded", extra={"model": name, **runs, "max_tokens": self.max_tokens})

    @torch.inference_mode()
    def forward(self, pairs: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """One pass over all pairs: log-odds, [n], float32. MemoryError if the device has no room for it."""
        with devices.forward_pass(self.device, pairs, self._threads, "pairs"):
            return self._log_odds(pairs).cpu().numpy()

    def tensors(self, pairs: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Pairs as the network reads them."""
        return devices.tensors(self._padding.arrays(pairs), self.device)

    def _log_odds(self, pairs: Sequence[Tokens]) -> torch.Tensor:
        logits: torch.Tensor = self.network(**self.tensors(pairs)).logits
        return logits.float().reshape(len(pairs))

    @torch.inference_mode()
    def _probe(self) -> torch.Tensor:
        return self._log_odds(self._tokenizer.read(_PROBES))


class Float32Linear(nn.Module):
    """An `nn.Linear` that computes in float32 whatever the type of its input."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().float(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().float(), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs.float(), self.weight, self.bias)


def _load_published(name: str, dtype: torch.dtype) -> LoadedCrossEncoder:
    """A cross-encoder of a hub or a folder: a transformer with a head that gives one number for a pair."""
    folder = source.folder(*source.split(name))
    chain = pretrained.load_chain(CrossEncoder, folder, "cpu", dtype)
    if chain.num_labels != 1:
        raise ModelUnavailable(f"{folder.name} gives {chain.num_labels} numbers for a pair; a reranker gives one.")
    transformer, *rest = chain
    if rest or not isinstance(transformer, Transformer):
        raise ModelUnavailable(f"{folder.name} is no transformer with a head of one number, so it cannot rerank here.")
    if chain.tokenizer is None or not chain.tokenizer.is_fast:
        raise ModelUnavailable(f"{folder.name} has no fast tokenizer.")
    return LoadedCrossEncoder(transformer.model, chain.tokenizer, pretrained.max_tokens(folder, chain), UNCALIBRATED)
