"""Static embeddings in memory: a row for each token, and the mean of the rows of a text. No attention, no GPU.

`StaticEmbedding` of sentence-transformers, alone or with what may follow it (`Dense`, `Normalize`). A text that leaves
no tokens has no vector: its row is zero, as the library gives it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Encoding, Tokenizer

from service.core.errors import ModelUnavailable
from service.embedder.models import pretrained, source
from service.embedder.models.transformer import prompts

log = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Such a model has no longest input. A mean over much more than this says little of any part of the text, so passages
are cut here, unless the collection says less; a tokenizer that was saved with a shorter limit keeps it."""

BATCH_TOKENS = 65_536
"""Nothing is padded and nothing but the rows is computed: a pass may be large."""

_PROBE = "The quick brown fox jumps over the lazy dog."


def describes(folder: Path) -> bool:
    """Is the model of this folder a static one?"""
    chain = source.modules(folder)
    return bool(chain) and str(chain[0].get("type", "")).rpartition(".")[2] == StaticEmbedding.__name__


class StaticModel:
    """Rows, tokenizer and the modules after it, always on CPU in float32. Safe to use from several threads at once."""

    batch_tokens = BATCH_TOKENS
    streams = 1

    def __init__(self, folder: Path) -> None:
        """Load from a checked folder (see `source`). ModelUnavailable with the reason where that fails."""
        try:
            chain = SentenceTransformer(str(folder), device="cpu", trust_remote_code=False, local_files_only=True)
        except Exception as error:  # whatever a broken folder makes the library raise
            raise ModelUnavailable(f"{folder.name} cannot be loaded: {error}") from error
        pretrained.own_weights(chain)
        first, *rest = chain
        if not isinstance(first, StaticEmbedding):
            raise ModelUnavailable(f"{folder.name} does not begin with static embeddings.")
        self._embedding = first.embedding.float().eval()
        self._rest = [module.float().eval() for module in rest]
        self.prompts = prompts(chain)
        # Copies of our own, which nobody changes again: see `Model`.
        self._whole: Tokenizer = Tokenizer.from_str(first.tokenizer.to_str())
        saved = self._whole.truncation
        self._whole.no_truncation()
        self._whole.no_padding()
        self.max_tokens = min(MAX_TOKENS, int(saved["max_length"])) if saved else MAX_TOKENS
        self._cut: Tokenizer = Tokenizer.from_str(self._whole.to_str())
        self._cut.enable_truncation(self.max_tokens, direction=saved["direction"] if saved else "right")
        try:
            self.dimensions = int(self.forward([_PROBE], 0).shape[1])
        except Exception as error:  # a module that does not fit the one before it
            raise ModelUnavailable(f"{folder.name} cannot be used: {error}") from error
        log.info("model loaded", extra={"model": folder.name, "static": True, "dimensions": self.dimensions})

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[Encoding]:
        """All tokens of each text, none cut. The model sees no special ones."""
        return self._whole.encode_batch(list(texts), add_special_tokens=False)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in self._whole.encode_batch_fast(list(texts), add_special_tokens=False)]

    def prompt_length(self, prompt: str) -> int:
        """Matters to pooling alone, of which there is none."""
        return 0

    @torch.inference_mode()
    def forward(self, texts: Sequence[str], prompt_length: int, *, scaled: bool = True) -> npt.NDArray[np.float32]:
        """Means of the first `max_tokens` rows of each text, through the rest of the chain: [n, dimensions].

        `scaled` False leaves out what the chain has to bring vectors to length 1.
        """
        encodings = self._cut.encode_batch_fast(list(texts), add_special_tokens=False)
        lengths = [len(encoding) for encoding in encodings]
        ids = np.fromiter((token for encoding in encodings for token in encoding.ids), np.int64, sum(lengths))
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        torch.set_num_threads(1)  # of the calling thread alone; reading rows is bound by memory, not by arithmetic
        features = {"sentence_embedding": self._embedding(torch.from_numpy(ids), torch.from_numpy(starts))}
        for module in self._rest:
            if scaled or not isinstance(module, Normalize):
                features = module(features)
        vectors: npt.NDArray[np.float32] = features["sentence_embedding"].float().numpy()
        return vectors
