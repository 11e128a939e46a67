"""A reranker as a small file: the weights learned on top of the bundled encoder, merged into it when it is loaded.

A LoRA adapter (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022) keeps two thin matrices for
each linear layer W of the backbone; the trained layer is W + (alpha / r) B A. It also holds, in full, the pooler (tanh
of a dense layer over [CLS]) and the head that gives one logit for a pair. A folder holds `adapter.safetensors`,
`adapter.json` and `README.md`, the model card.

PyTorch is imported where it is needed: a process that runs the reranker in ONNX Runtime reads only the description.
"""

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from service.core.errors import ModelUnavailable, raised_as
from service.core.logistic import Logistic
from service.core.relevance import RelevanceCalibration
from service.embedder.models import fingerprint, source

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerFast

BUNDLED = "azimuth-minilm-l6"
"""The bundled reranker: all-MiniLM-L6-v2 with the adapter in `service/embedder/reranker/adapters`."""

WEIGHTS, CONFIG, CARD = "adapter.safetensors", "adapter.json", "README.md"
FORMAT = 1
HEAD = "classifier"
POOLER = "bert.pooler.dense"
FULL_LAYERS = (HEAD, POOLER)
"""Layers that the adapter holds in full rather than as a difference."""
DOWN, UP = ".lora_A", ".lora_B"
UNCALIBRATED = Logistic(weights=(1.0,), bias=0.0)
"""The plain logistic function, as published models use it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterDescription:
    """The content of `adapter.json`.

    `digests`: of the backbone's weights and tokenizer, as in `fingerprint.parts`. `rank`, `alpha`: of LoRA.
    `max_tokens`: the longest pair, special tokens included, that the adapter was trained for. `slope`, `offset`: its
    calibration, the line from its logit to the log-odds of relevance. `relevance`: what the hits of a search are made
    probabilities with, fitted over several collections; None where that was not done.
    """

    backbone: str
    digests: dict[str, str]
    rank: int
    alpha: float
    max_tokens: int
    slope: float = 1.0
    offset: float = 0.0
    relevance: RelevanceCalibration | None = None
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class LoadedCrossEncoder:
    """A cross-encoder loaded from its files, in evaluation mode.

    `network(input_ids=, attention_mask=, token_type_ids=).logits` is [pairs, 1]; the query is the first segment, the
    passage the second. `tokenizer` encodes two texts so.
    """

    network: "nn.Module"
    tokenizer: Any
    max_tokens: int
    calibration: Logistic
    relevance: RelevanceCalibration | None = None


def is_adapter(name: str) -> bool:
    """Whether this names the bundled reranker or a folder made by `azimuth train reranker`."""
    return name == BUNDLED or (Path(name) / CONFIG).is_file()


def folder_of(name: str) -> Path:
    return Path(str(files("service.embedder.reranker") / "adapters" / BUNDLED)) if name == BUNDLED else Path(name)


def load_reranker(name: str = BUNDLED) -> LoadedCrossEncoder:
    """The bundled reranker, or that of a folder, merged into its backbone: on CPU, in float32. Blocks for a second.

    ModelUnavailable if the folder holds no adapter, or one for other weights of the backbone than are installed here:
    on them its differences have no meaning.
    """
    folder = folder_of(name)
    description = describe(folder)
    backbone = source.folder(*source.split(description.backbone))
    if digests(backbone) != description.digests:
        raise ModelUnavailable(
            f"The adapter {folder.name} was trained on another {description.backbone} than is installed here."
        )
    model = cross_encoder(backbone)
    unfit = f"The adapter {folder.name} does not fit {description.backbone}"
    with raised_as(ModelUnavailable, unfit, KeyError, RuntimeError):
        merge(model, read(folder), description.alpha / description.rank)
    calibration = Logistic(weights=(description.slope,), bias=description.offset)
    tokenizer = tokenizer_of(backbone)
    return LoadedCrossEncoder(model.eval(), tokenizer, description.max_tokens, calibration, description.relevance)


def describe(folder: Path) -> AdapterDescription:
    """Read `adapter.json`. ModelUnavailable if it is missing, unreadable, or has an unknown format."""
    unreadable = OSError, ValueError, AttributeError, TypeError
    with raised_as(ModelUnavailable, f"{folder} holds no readable adapter", *unreadable):
        values: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
        if values.get("format") != FORMAT:
            raise ModelUnavailable(
                f"The adapter {folder.name} has format {values.get('format')}; this version reads format {FORMAT}."
            )
        if values.get("relevance"):
            values["relevance"] = RelevanceCalibration(**values["relevance"])
        return AdapterDescription(**{key: values[key] for key in AdapterDescription.__slots__ if key in values})


def read(folder: Path) -> "dict[str, torch.Tensor]":
    """The saved weights. ModelUnavailable if the file is missing or malformed."""
    from safetensors.torch import load_file

    unreadable = f"The weights of the adapter {folder.name} cannot be read"
    with raised_as(ModelUnavailable, unreadable, OSError, SafetensorError):
        return dict(load_file(folder / WEIGHTS))


def save(folder: Path, weights: "dict[str, torch.Tensor]", description: AdapterDescription) -> None:
    """Write weights (see `extract`), in half precision, and their description. OSError if writing fails."""
    import torch
    from safetensors.torch import save as serialized

    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in weights.items()}
    # Not `save_file`, whose files only their owner can read. Replaced atomically: the process may be killed meanwhile.
    partial = folder / f"{WEIGHTS}.partial"
    partial.write_bytes(serialized(halves))
    partial.replace(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(asdict(description), indent=2) + "\n", encoding="utf-8")


def extract(state: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The trained weights in the state of a model with LoRA layers as `peft` names them."""
    return {
        name.replace(".default.weight", ""): tensor
        for name, tensor in state.items()
        if DOWN in name or UP in name or name.startswith(FULL_LAYERS)
    }


def merge(model: "nn.Module", weights: "dict[str, torch.Tensor]", scale: float) -> None:
    """W += scale B A for each adapted layer; pooler and head are replaced. In place.

    KeyError or RuntimeError if the weights belong to another model.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, tensor in weights.items():
        if name.endswith(DOWN):
            layer = name.removesuffix(DOWN)
            parameters[f"{layer}.weight"].add_(weights[layer + UP].float() @ tensor.float(), alpha=scale)
        elif not name.endswith(UP):
            parameters[name].copy_(tensor)


def cross_encoder(backbone: Path) -> "nn.Module":
    """The encoder with a pooler and a randomly initialized head for one logit, in float32 and memory of its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, logging

    from service.embedder.models import pretrained

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn that the head is new, which is intended
    # Whatever it is: a broken folder can make the library raise anything.
    unusable = raised_as(ModelUnavailable, f"{backbone.name} cannot be loaded as a cross-encoder", Exception)
    try:
        with pretrained.one_at_a_time, unusable:
            model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
                str(backbone), num_labels=1, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
    finally:
        logging.set_verbosity(verbosity)
    pretrained.own_weights(model)
    return model


def tokenizer_of(backbone: Path) -> "PreTrainedTokenizerFast":
    """ModelUnavailable if the folder has no tokenizer or only a slow one."""
    from transformers import AutoTokenizer

    with raised_as(ModelUnavailable, f"{backbone.name} has no tokenizer that can be loaded", Exception):  # as above
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(backbone), local_files_only=True)
    if not tokenizer.is_fast:
        raise ModelUnavailable(f"{backbone.name} has no fast tokenizer.")
    return tokenizer


def digests(backbone: Path) -> dict[str, str]:
    """Identify the backbone: a changed byte in weights or tokenizer changes one of these digests."""
    parts = fingerprint.parts(backbone)
    return {name: parts[name] for name in ("weights", "tokenizer")}
