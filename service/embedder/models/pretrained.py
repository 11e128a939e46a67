"""Load and run chains of sentence-transformers modules: what serving and training have in common."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn

from service.core.errors import ModelUnavailable, raised_as
from service.core.ids import Role

PROBE_TEXT = "The quick brown fox jumps over the lazy dog."
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models keep the prompt of documents, in the order of `SentenceTransformer.encode_document`."""

one_at_a_time = threading.Lock()
"""Held while weights are loaded: meanwhile the default type of tensors, which is that of the whole process, is theirs,
and what another thread loads would mix both."""

Chain = TypeVar("Chain", SentenceTransformer, CrossEncoder)


def load_chain(kind: Callable[..., Chain], folder: Path, device: str, dtype: torch.dtype | None = None) -> Chain:
    """Load a checked folder (see `source`) into memory of its own. ModelUnavailable with the reason if that fails."""
    options: dict[str, Any] = {} if dtype is None else {"model_kwargs": {"dtype": dtype, "use_safetensors": True}}
    # Whatever it is: a broken folder can make the library raise anything.
    with one_at_a_time, raised_as(ModelUnavailable, f"{folder.name} cannot be loaded", Exception):
        chain = kind(str(folder), device=device, trust_remote_code=False, local_files_only=True, **options)
    own_weights(chain)
    return chain


def own_weights(module: nn.Module) -> None:
    """Copy weights in main memory; those on another device are a copy already.

    Libraries map files into memory: overwriting one in place would change the running model, truncating it would crash.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def max_tokens(folder: Path, chain: SentenceTransformer | CrossEncoder) -> int:
    """The longest input. Tokenizers without a limit say 10^30; then the number of position embeddings decides."""
    config = chain[0].model.config
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    known = [int(value) for value in (chain.max_seq_length, positions) if value is not None and 0 < value < 10**7]
    if not known:
        raise ModelUnavailable(f"{folder.name} does not say how many tokens it takes.")
    return min(known)


def image_tokens(transformer: Transformer) -> int:
    """How many patches an image tower reads of an image; 0 without one, also where images come in chat messages."""
    vision = getattr(transformer.model.config, "vision_config", None)
    if "image" not in transformer.modality_config or "message" in transformer.modality_config or vision is None:
        return 0
    return int((vision.image_size // vision.patch_size) ** 2 + 1)


def role_prompts(chain: SentenceTransformer) -> dict[Role, str]:
    """The prompts that the model was trained with. An empty one counts as none: the library fills in such."""
    document = (chain.prompts.get(name, "") for name in _DOCUMENT_PROMPTS)
    return {"query": chain.prompts.get("query", ""), "document": next(filter(None, document), "")}


def prompt_length(ids: Sequence[int], special: Collection[int]) -> int:
    """Tokens of an encoded prompt at the head of a text; a special token that closes it, such as [SEP], is left out."""
    return len(ids) - (1 if ids[-1] in special else 0)


def without_scaling(modules: Iterable[Any]) -> list[Any]:
    """A chain without the modules at its end that only scale vectors to length 1."""
    kept = list(modules)
    while isinstance(kept[-1], Normalize):
        kept.pop()
    return kept


def embed(
    modules: Iterable[nn.Module],
    inputs: Mapping[str, Any],
    prompt_length: int,
    *,
    autocast: tuple[str, torch.dtype] | None = None,
) -> torch.Tensor:
    """Run tokens, or prepared images, through a transformer and the modules after it: [n, dimensions], float32.

    `autocast`: device type and precision of the transformer, if its weights have another; the cheap modules after it
    compute in float32.
    """
    transformer, *rest = modules
    features: dict[str, Any] = {"modality": "text", **inputs}
    if prompt_length:
        features["prompt_length"] = prompt_length
    with torch.autocast(*autocast) if autocast else nullcontext():
        features = transformer(features)
    if "token_embeddings" in features:
        features["token_embeddings"] = features["token_embeddings"].float()
    for module in rest:
        features = module(features)
    vectors: torch.Tensor = features["sentence_embedding"].float()
    return vectors
