"""A cross-encoder in memory: pairs of texts in, log-odds of relevance out, with little overhead.

`CrossEncoder.predict` truncates both texts of a pair that is too long and, in bfloat16, rounds the output to 8 bits.
This module calls the network directly: the passage is truncated first, then the query, and both are counted. The last
layer computes in float32, so that different passages do not get equal scores.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from torch import nn

from service.core import metrics
from service.core.errors import ModelUnavailable
from service.embedder.models import device as devices
from service.embedder.models import packed_linear, pretrained, source
from service.embedder.models.padding import Padding
from service.embedder.models.pass_budget import PassBudget
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens
from service.embedder.reranker import adapter
from service.embedder.reranker.adapter import UNCALIBRATED, LoadedCrossEncoder

log = logging.getLogger(__name__)

MIN_PASSAGE_SHARE = 0.25
"""Of the input, which a passage keeps (if it is that long) before the query is cut: about 50 words of 256 tokens."""
_PROBE = ("how to sort a list", pretrained.PROBE_TEXT)


class PackedCrossEncoder:
    """Weights and tokenizer of one cross-encoder: a `PassModel` of the scheduler. Use `forward` from one thread."""

    kind = "reranker"

    def __init__(self, name: str, *, device: str, precision: str, threads: int, batch_tokens: int = 0) -> None:
        """Blocks, for minutes if it downloads. ModelUnavailable with the reason if it cannot be loaded.

        `name`: see `CrossEncoderReranker`. `threads`: upper bound for one pass on CPU; 0: the default of torch.
        `batch_tokens`: padded tokens of one pass; 0: by device.
        """
        self.device = devices.choose(device)
        dtype = devices.precision(self.device, precision)
        loaded = adapter.load_reranker(name) if adapter.is_adapter(name) else _load_published(name, dtype)
        self.calibration, self.relevance = loaded.calibration, loaded.relevance
        self.max_tokens = loaded.max_tokens
        self.batch_tokens = batch_tokens or devices.batch_tokens(self.device)
        self.budget = PassBudget(self.batch_tokens)
        self.pass_overhead = devices.pass_overhead(self.device)
        self._threads = threads or torch.get_num_threads()
        self._padding = Padding.of(loaded.tokenizer)
        serialized = loaded.tokenizer.backend_tokenizer.to_str()
        self._tokenizer = TextTokenizer(serialized, self.max_tokens, strategy="only_second")
        self._room = self.max_tokens - self._tokenizer.pair_overhead
        self._min_passage_tokens = int(MIN_PASSAGE_SHARE * self._room)
        self._network = loaded.network.to(dtype)
        # With the 8 bits of bfloat16 log-odds of 5 are equal within 0.03, so the output layer computes in float32.
        outputs = [layer for layer in packed_linear.linear_layers(self._network) if layer[2].out_features == 1]
        for parent, attribute, layer in outputs[-1:]:
            setattr(parent, attribute, Float32Linear(layer))
        self._network.to(self.device).eval()
        packed = self.device.type == "cpu" and packed_linear.pack_linear_layers(
            self._network,
            self._probe,
            tolerance=1e-3 if dtype == torch.float32 else 0.25,  # log-odds are a few units
        )
        runs = {"device": str(self.device), "precision": str(dtype).removeprefix("torch."), "packed": packed}
        log.info("reranker loaded", extra={"model": name, **runs, "max_tokens": self.max_tokens})

    def tokens(self, query: str, passages: Sequence[str]) -> tuple[list[Tokens], float]:
        """The query with each passage as the model reads them, and how much of the query was read with each of them,
        at least: a share, 1 where it was not cut.

        A passage is truncated down to `MIN_PASSAGE_SHARE` of the input. Only a query that does not fit beside that is
        cut, as little as the length of the passage allows: a score depends on no other passage.
        """
        (offsets,) = self._tokenizer.offsets([query])
        queries, share = [query] * len(passages), 1.0
        if len(offsets) > self._room - self._min_passage_tokens:
            rooms = [self._room - self._tokenizer.count(passage, self._min_passage_tokens) for passage in passages]
            by_room = {room: self._ends(query, offsets, room) for room in set(rooms)}
            queries, share = [by_room[room] for room in rooms], min(1.0, min(rooms) / len(offsets))
        return self._tokenizer.read(list(zip(queries, passages, strict=True))), share

    def _ends(self, query: str, offsets: npt.NDArray[np.int64], room: int) -> str:
        """The query, or as much of its beginning and its end as `room` tokens hold: the question is at either.

        A cut within a word may change its tokens, so that fewer than `room` of the original ones fit.
        """
        if len(offsets) <= room:
            return query
        for kept in range(room, 1, -1):
            tail = kept // 2
            ends = f"{query[: offsets[kept - tail - 1, 1]]} {query[offsets[-tail, 0] :]}"
            if len(self._tokenizer.offsets([ends])[0]) <= room:
                return ends
        return ""

    @torch.inference_mode()
    def forward(self, pairs: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        """One pass over all pairs: log-odds, [n], float32. MemoryError if the device has no room for it."""
        with devices.forward_pass(self.device, pairs, self._threads, "pairs"):
            return self._log_odds(pairs).cpu().numpy()

    def record(self, pairs: Sequence[Tokens], seconds: float) -> None:
        metrics.RERANK_PASS_SECONDS.observe(seconds)
        metrics.RERANKED_PAIRS.inc(len(pairs))

    def _log_odds(self, pairs: Sequence[Tokens]) -> torch.Tensor:
        logits: torch.Tensor = self._network(**devices.tensors(self._padding.arrays(pairs), self.device)).logits
        return logits.float().reshape(len(pairs))

    @torch.inference_mode()
    def _probe(self) -> torch.Tensor:
        return self._log_odds(self._tokenizer.read([_PROBE]))


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
