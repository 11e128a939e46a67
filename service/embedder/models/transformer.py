"""One sentence-transformers model in memory: tokens in, pooled vectors out, by the shortest path.

`SentenceTransformer.encode` spends about as long on checks, sorting and conversions of one query as a small model
takes to answer it. Here its own modules are called, with tokens prepared by the Rust tokenizer beneath.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tokenizers import Encoding, Tokenizer

from service.core.errors import ModelUnavailable
from service.core.ids import Role
from service.embedder.models import device as devices
from service.embedder.models import packed_linear, pretrained
from service.embedder.models.device import use_threads
from service.embedder.models.padding import Padding

log = logging.getLogger(__name__)

_PROBE = "The quick brown fox jumps over the lazy dog."
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models keep the prompt of documents, in the order of `SentenceTransformer.encode_document`."""


class TransformerModel:
    """Weights, tokenizer and chain of modules. Safe to use from several threads at once."""

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int) -> None:
        """Load from a checked folder (see `source`). ModelUnavailable with the reason where that fails.

        `threads`: the most that one pass may use on CPU; 0: as many as torch would.
        """
        self.device = devices.choose(device)
        self.dtype = devices.precision(self.device, precision)
        self._threads = threads or torch.get_num_threads()
        try:
            chain = SentenceTransformer(
                str(folder),
                device=str(self.device),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": self.dtype, "use_safetensors": True},
            )
        except Exception as error:  # whatever a broken folder makes the library raise
            raise ModelUnavailable(f"{folder.name} cannot be loaded: {error}") from error
        pretrained.own_weights(chain)
        self._transformer, *rest = chain
        if not isinstance(self._transformer, Transformer) or "text" not in self._transformer.modality_config:
            raise ModelUnavailable(f"{folder.name} does not begin with a transformer that reads plain text.")
        tokenizer = self._transformer.tokenizer
        if tokenizer is None or not tokenizer.is_fast:
            raise ModelUnavailable(f"{folder.name} has no fast tokenizer, so passages could not be placed in texts.")
        # What follows the transformer is cheap: in float32 it loses nothing more.
        self._rest = [module.float().eval() for module in rest]
        self._transformer.eval()
        self.batch_tokens = devices.batch_tokens(self.device)
        # On a GPU the next batch is tokenized while this one is computed; a CPU has nothing to spare for that.
        self.streams = 1 if self.device.type == "cpu" else 2
        self.max_tokens = max_tokens(folder, chain)
        self.prompts = prompts(chain)
        self._padding = Padding.of(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        # Copies of our own: transformers changes the settings of the shared one at every call, which two threads
        # cannot do at once. These two are never changed again.
        self._whole: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._whole.no_truncation()
        self._whole.no_padding()
        self._cut: Tokenizer = Tokenizer.from_str(self._whole.to_str())
        self._cut.enable_truncation(self.max_tokens, direction=tokenizer.truncation_side)
        self.packed = self.device.type == "cpu" and packed_linear.pack(
            self._transformer.model, self._probe, tolerance=1e-4 if self.dtype == torch.float32 else 0.05
        )
        self.dimensions = int(self._probe().shape[1])
        log.info(
            "model loaded",
            extra={
                "model": folder.name,
                "device": str(self.device),
                "precision": str(self.dtype).removeprefix("torch."),
                "packed": self.packed,
                "dimensions": self.dimensions,
                "max_tokens": self.max_tokens,
            },
        )

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[Encoding]:
        """All tokens of each text, none cut; with the special tokens that the model sees, or without."""
        return self._whole.encode_batch(list(texts), add_special_tokens=special)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included."""
        return [len(encoding) for encoding in self._whole.encode_batch_fast(list(texts))]

    def prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt as it stands at the head of a text: those after it, such as [SEP], do not count."""
        if not prompt:
            return 0
        ids = self._cut.encode(prompt).ids
        return len(ids) - (1 if ids[-1] in self._special else 0)

    @torch.inference_mode()
    def forward(self, texts: Sequence[str], prompt_length: int, *, scaled: bool = True) -> npt.NDArray[np.float32]:
        """One pass over all texts, cut at the longest length that the model takes: [n, dimensions], float32.

        `scaled` False leaves out what the chain has to bring vectors to length 1.

        MemoryError where the device has no room for it.
        """
        encodings = self._cut.encode_batch_fast(list(texts))
        if self.device.type == "cpu":
            use_threads(len(encodings) * max(map(len, encodings)), self._threads)
        try:
            return self._pooled(encodings, prompt_length, scaled).cpu().numpy()
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(f"no room on {self.device} for {len(texts)} texts") from error

    def _pooled(self, encodings: Sequence[Encoding], prompt_length: int, scaled: bool = True) -> torch.Tensor:
        features: dict[str, Any] = self._features(encodings)
        features["modality"] = "text"
        if prompt_length:
            features["prompt_length"] = prompt_length
        features = self._transformer(features)
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in self._rest:
            if scaled or not isinstance(module, Normalize):
                features = module(features)
        pooled: torch.Tensor = features["sentence_embedding"].float()
        return pooled

    def _features(self, encodings: Sequence[Encoding]) -> dict[str, torch.Tensor]:
        """Padded input tensors, [n, longest]."""
        return {
            name: torch.from_numpy(array).to(self.device, non_blocking=True)
            for name, array in self._padding.arrays(encodings).items()
        }

    @torch.inference_mode()
    def _probe(self) -> torch.Tensor:
        return torch.nn.functional.normalize(self._pooled([self._cut.encode(_PROBE)], 0))


def max_tokens(folder: Path, chain: SentenceTransformer | CrossEncoder) -> int:
    """The longest input. Tokenizers that were not told say 10^30: then the table of positions decides."""
    positions = getattr(chain[0].model.config, "max_position_embeddings", None)
    stated = chain.max_seq_length
    known = [int(value) for value in (stated, positions) if value is not None and 0 < value < 10**7]
    if not known:
        raise ModelUnavailable(f"{folder.name} does not say how many tokens it takes.")
    return min(known)


def prompts(chain: SentenceTransformer) -> dict[Role, str]:
    """The prompts that the model was trained with. An empty one counts as none: the library fills in such."""
    document = (chain.prompts.get(name, "") for name in _DOCUMENT_PROMPTS)
    return {"query": chain.prompts.get("query", ""), "document": next(filter(None, document), "")}
