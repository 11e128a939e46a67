"""One sentence-transformers model in memory: tokens in, pooled vectors out, with little overhead.

`SentenceTransformer.encode` spends about as much time on checks, sorting and conversions of one query as a small model
needs to encode it. This module calls the model's modules directly, with tokens of the underlying Rust tokenizer.
"""

import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from service.core.errors import ModelUnavailable
from service.embedder.models import device as devices
from service.embedder.models import packed_linear, pretrained
from service.embedder.models.padding import Padding
from service.embedder.models.text_input import ImageInput
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens
from service.spaces.model_verification import CANARY_IMAGE

log = logging.getLogger(__name__)


class TransformerModel:
    """Weights, tokenizer and chain of modules. Safe to use from several threads at once."""

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int, pack: bool = True) -> None:
        """Load from a checked folder (see `source`). ModelUnavailable with the reason if that fails.

        `threads`: upper bound for one pass on CPU; 0: the default of torch. `pack`: see `packed_linear`.
        """
        self.device = devices.choose(device)
        self.dtype = devices.precision(self.device, precision)
        self._threads = threads or torch.get_num_threads()
        chain = pretrained.load_chain(SentenceTransformer, folder, str(self.device), self.dtype)
        self._transformer, *rest = pretrained.without_scaling(chain)
        if not isinstance(self._transformer, Transformer) or "text" not in self._transformer.modality_config:
            raise ModelUnavailable(f"{folder.name} does not begin with a transformer that reads plain text.")
        tokenizer = self._transformer.tokenizer
        if tokenizer is None or not tokenizer.is_fast:
            raise ModelUnavailable(f"{folder.name} has no fast tokenizer, so passages could not be located in texts.")
        # The modules after the transformer are cheap, so they run in float32 and lose no further precision.
        self.modules = [self._transformer.eval(), *(module.float().eval() for module in rest)]
        self.batch_tokens = devices.batch_tokens(self.device)
        # On a GPU the next batch is tokenized while this one is computed; a CPU has no spare capacity for that.
        self.streams = 1 if self.device.type == "cpu" else 2
        self.max_tokens = pretrained.max_tokens(folder, chain)
        self.image_tokens = pretrained.image_tokens(self._transformer)
        self.prompts = pretrained.role_prompts(chain)
        self.padding = Padding.of(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        self.serialized_tokenizer, self.truncated_side = tokenizer.backend_tokenizer.to_str(), tokenizer.truncation_side
        self.tokenizer = TextTokenizer(tokenizer.backend_tokenizer, self.max_tokens, direction=self.truncated_side)
        self.packed = (
            pack
            and self.device.type == "cpu"
            and packed_linear.pack_linear_layers(
                self._transformer.model, self._probe, tolerance=1e-4 if self.dtype == torch.float32 else 0.05
            )
        )
        self.dimensions = int(self._probe().shape[1])
        runs = {"device": str(self.device), "precision": str(self.dtype).removeprefix("torch."), "packed": self.packed}
        sizes = {"dimensions": self.dimensions, "max_tokens": self.max_tokens}
        log.info("model loaded", extra={"model": folder.name, **runs, **sizes})

    def prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt at the head of a text."""
        return pretrained.prompt_length(self.tokenizer.read([prompt])[0].ids.tolist(), self._special) if prompt else 0

    @torch.inference_mode()
    def forward(self, texts: Sequence[Any], prompt_length: int) -> npt.NDArray[np.float32]:
        """One pass over all texts: [n, dimensions], of any length. MemoryError if the device has no room for it.

        With an image tower, images (`ImageInput`) may be among them, and have a pass of their own.
        """
        with devices.forward_pass(self.device, texts, self._threads, "texts"):
            images = [at for at, one in enumerate(texts) if isinstance(one, ImageInput)]
            if not images:
                return self._embed(texts, prompt_length).cpu().numpy()
            vectors = np.empty((len(texts), self.dimensions), np.float32)
            vectors[images] = self._embed_images([texts[at].content for at in images]).cpu().numpy()
            if others := sorted(set(range(len(texts))) - set(images)):
                vectors[others] = self._embed([texts[at] for at in others], prompt_length).cpu().numpy()
            return vectors

    def tensors(self, texts: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Texts as the first module reads them."""
        return devices.tensors(self.padding.arrays(texts), self.device)

    def _embed(self, texts: Sequence[Tokens], prompt_length: int) -> torch.Tensor:
        return pretrained.embed(self.modules, self.tensors(texts), prompt_length)

    def _embed_images(self, contents: Sequence[bytes]) -> torch.Tensor:
        from PIL import Image

        prepared = self._transformer.preprocess([Image.open(BytesIO(one)).convert("RGB") for one in contents])
        pixels = {"pixel_values": prepared["pixel_values"].to(self.device, self.dtype)}
        return pretrained.embed(self.modules, {**prepared, **pixels}, 0)

    @torch.inference_mode()
    def _probe(self) -> torch.Tensor:
        probes = [self._embed(self.tokenizer.read([pretrained.PROBE_TEXT]), 0)]
        if self.image_tokens:
            probes.append(self._embed_images([CANARY_IMAGE]))
        return torch.nn.functional.normalize(torch.cat(probes))
