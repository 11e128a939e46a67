"""A cross-encoder in memory: pairs of texts in, log-odds of relevance out, by the shortest path.

`CrossEncoder.predict` cuts both texts where a pair is too long, and rounds the last product to 8 bits in bfloat16. Here
the network is called directly, as in `model`: the passage alone is cut, and counted; the last layer computes in
float32, so that passages which differ do not get the same score.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from tokenizers import Encoding, Tokenizer
from torch import nn

from service.core.errors import ModelUnavailable
from service.core.logistic import Logistic
from service.embedder.models import device as devices
from service.embedder.models import packed_linear, pretrained, source
from service.embedder.models.device import use_threads
from service.embedder.models.padding import Padding
from service.embedder.models.transformer import max_tokens
from service.embedder.reranker import adapter

log = logging.getLogger(__name__)

_PROBE = ("how to sort a list", "The quick brown fox jumps over the lazy dog.")
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""Of log-odds, which are a few units: more than rounding says that a packed model is another one."""


PLAIN = Logistic(weights=(1.0,), bias=0.0)
"""The logistic function alone: what published models say of themselves."""


@dataclass(frozen=True, slots=True)
class LoadedCrossEncoder:
    """A cross-encoder as it comes from its files, in evaluation mode."""

    network: nn.Module
    tokenizer: Any
    max_tokens: int
    calibration: Logistic


class PackedCrossEncoder:
    """Weights and tokenizer of one cross-encoder. Use it from one thread."""

    def __init__(self, name: str, *, device: str, precision: str, threads: int) -> None:
        """Blocks, for minutes where it downloads. ModelUnavailable with the reason where it cannot be loaded.

        `name`: see `reranker`. `threads`: the most that one pass may use on CPU; 0: as many as torch would.
        """
        self.device = devices.choose(device)
        dtype = devices.precision(self.device, precision)
        loaded = _adapted(name) if adapter.is_adapter(name) else _published(name, dtype)
        self.calibration = loaded.calibration
        self.max_tokens = loaded.max_tokens
        self.batch_tokens = devices.batch_tokens(self.device)
        self.pass_overhead = devices.pass_overhead(self.device)
        self._threads = threads or torch.get_num_threads()
        self._padding = Padding.of(loaded.tokenizer)
        self._whole: Tokenizer = Tokenizer.from_str(loaded.tokenizer.backend_tokenizer.to_str())
        self._whole.no_truncation()
        self._whole.no_padding()
        self._most_of_query = (self.max_tokens - self._whole.num_special_tokens_to_add(is_pair=True)) // 2
        self._cut: Tokenizer = Tokenizer.from_str(self._whole.to_str())
        self._cut.enable_truncation(self.max_tokens, strategy="only_second")
        self._network = loaded.network.to(dtype)
        _last_in_float32(self._network)
        self._network.to(self.device).eval()
        packed = self.device.type == "cpu" and packed_linear.pack(
            self._network, self._probe, _TOLERANCE.get(dtype, 0.25)
        )
        log.info(
            "reranker loaded",
            extra={
                "model": name,
                "device": str(self.device),
                "precision": str(dtype).removeprefix("torch."),
                "packed": packed,
                "max_tokens": self.max_tokens,
            },
        )

    def tokens(self, query: str, passages: Sequence[str]) -> tuple[list[Encoding], int]:
        """The query with each passage as the model sees them, and how many of these pairs had to be cut.

        The query is never cut for a passage; only one that would take more than half of the input is.
        """
        own = self._whole.encode(query, add_special_tokens=False)
        if len(own) > self._most_of_query:
            query = query[: own.offsets[self._most_of_query - 1][1]]
        encodings = self._cut.encode_batch_fast([(query, passage) for passage in passages])
        if len(own) > self._most_of_query:
            return encodings, len(encodings)
        return encodings, sum(bool(encoding.overflowing) for encoding in encodings)

    @torch.inference_mode()
    def forward(self, encodings: Sequence[Encoding]) -> npt.NDArray[np.float32]:
        """One pass over all of them: log-odds, [n], float32. MemoryError where the device has no room for it."""
        if self.device.type == "cpu":
            use_threads(len(encodings) * max(map(len, encodings)), self._threads)
        try:
            return self._log_odds(encodings).cpu().numpy()
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(f"no room on {self.device} for {len(encodings)} pairs") from error

    def _log_odds(self, encodings: Sequence[Encoding]) -> torch.Tensor:
        inputs = {
            name: torch.from_numpy(array).to(self.device, non_blocking=True)
            for name, array in self._padding.arrays(encodings).items()
        }
        logits: torch.Tensor = self._network(**inputs).logits
        return logits.float().reshape(len(encodings))

    @torch.inference_mode()
    def _probe(self) -> torch.Tensor:
        return self._log_odds([self._cut.encode(*_PROBE)])


class Float32Linear(nn.Module):
    """An `nn.Linear` that computes in float32 whatever it is given."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().float(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().float(), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs.float(), self.weight, self.bias)


def _last_in_float32(network: nn.Module) -> None:
    """The layer that gives the one number. bfloat16 has 8 bits: at log-odds of 5 all within 0.03 would be equal."""
    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.out_features == 1
    ]
    for parent, name, child in places[-1:]:
        setattr(parent, name, Float32Linear(child))


def _adapted(name: str) -> LoadedCrossEncoder:
    """The bundled reranker, or that of a folder that `azimuth train reranker` made."""
    found = adapter.load_reranker(name)
    return LoadedCrossEncoder(found.model, found.tokenizer, found.max_tokens, found.calibration)


def _published(name: str, dtype: torch.dtype) -> LoadedCrossEncoder:
    """A cross-encoder of a hub or a folder: a transformer with a head that gives one number a pair."""
    folder: Path = source.folder(*source.split(name))
    try:
        chain = CrossEncoder(
            str(folder),
            device="cpu",
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )
    except Exception as error:  # whatever a broken folder makes the library raise
        raise ModelUnavailable(f"{folder.name} cannot be loaded: {error}") from error
    if chain.num_labels != 1:
        raise ModelUnavailable(f"{folder.name} gives {chain.num_labels} numbers a pair; a reranker gives one.")
    transformer, *rest = chain
    if rest or not isinstance(transformer, Transformer):
        raise ModelUnavailable(f"{folder.name} is no transformer with a head of one number: it cannot rerank here.")
    if chain.tokenizer is None or not chain.tokenizer.is_fast:
        raise ModelUnavailable(f"{folder.name} has no fast tokenizer.")
    pretrained.own_weights(chain)
    return LoadedCrossEncoder(transformer.model, chain.tokenizer, max_tokens(folder, chain), PLAIN)
