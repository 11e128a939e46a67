"""Static embeddings in memory: one row for each token; a text's vector is the mean of its rows. No attention, no GPU.

Supports `StaticEmbedding` of sentence-transformers, alone or followed by `Dense` or `Normalize`. A text without tokens
has no vector: its row is zero, as in the library.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from service.core.errors import ModelUnavailable, raised_as
from service.embedder.models import pretrained
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens

log = logging.getLogger(__name__)

MAX_TOKENS = 512
"""Static models have no longest input, but a mean over many more tokens says little about any part of the text. This
is the length of a passage unless the collection sets less or the tokenizer was saved with a shorter limit."""


class StaticModel:
    """Rows, tokenizer and the modules after them, always on CPU in float32. Safe to use from several threads."""

    batch_tokens = 65_536  # nothing is padded and only rows are read, so a pass may be large
    streams = 1
    image_tokens = 0

    def __init__(self, folder: Path) -> None:
        """Load from a checked folder (see `source`). ModelUnavailable with the reason if that fails."""
        chain = pretrained.load_chain(SentenceTransformer, folder, "cpu")
        first = chain[0]
        if not isinstance(first, StaticEmbedding):
            raise ModelUnavailable(f"{folder.name} does not begin with static embeddings.")
        self._embedding = first.embedding.float().eval()
        self._rest = [module.float().eval() for module in pretrained.without_scaling(chain)[1:]]
        self.prompts = pretrained.role_prompts(chain)
        saved = first.tokenizer.truncation
        self.max_tokens = min(MAX_TOKENS, int(saved["max_length"])) if saved else MAX_TOKENS
        direction = saved["direction"] if saved else "right"
        self.tokenizer = TextTokenizer(first.tokenizer.to_str(), self.max_tokens, special=False, direction=direction)
        # A module may not fit the one before it.
        with raised_as(ModelUnavailable, f"{folder.name} cannot be used", Exception):
            self.dimensions = int(self.forward(self.tokenizer.read([pretrained.PROBE_TEXT]), 0).shape[1])
        log.info("model loaded", extra={"model": folder.name, "static": True, "dimensions": self.dimensions})

    def prompt_length(self, prompt: str) -> int:
        """Matters to pooling only, which static models do not have."""
        return 0

    @torch.inference_mode()
    def forward(self, texts: Sequence[Tokens], prompt_length: int) -> npt.NDArray[np.float32]:
        """Means of the rows of each text, through the modules after them: [n, dimensions], of any length."""
        lengths = list(map(len, texts))
        ids = np.concatenate([text.ids for text in texts]).astype(np.int64)
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        torch.set_num_threads(1)  # of the calling thread only; reading rows is bound by memory, not by arithmetic
        features = {"sentence_embedding": self._embedding(torch.from_numpy(ids), torch.from_numpy(starts))}
        for module in self._rest:
            features = module(features)
        vectors: npt.NDArray[np.float32] = features["sentence_embedding"].float().numpy()
        return vectors
