"""Export a model for ONNX Runtime and measure which backend is faster, in a process of its own: see `onnx_model`.

PyTorch needs hundreds of megabytes, which a process cannot give back. This one ends and leaves files.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from service.core.errors import ModelUnavailable
from service.embedder.models import fingerprint, onnx_export, pretrained
from service.embedder.models.onnx_choice import TORCH, OnnxOptions
from service.embedder.models.onnx_model import DESCRIPTION, PROOF_TEXTS, Description, Use
from service.embedder.models.onnx_network import OnnxNetwork, seconds_of
from service.embedder.models.text_tokenizer import Tokens
from service.embedder.models.transformer import TransformerModel

TRIAL_SECONDS = 1.0
LONG_TEXTS = 4
"""Copies of the longest proof text in a trial of passages, about 600 tokens together."""


def prepare(options: OnnxOptions) -> None:
    """Make what is not there yet. Any error may be raised: not every model can be exported."""
    source = TransformerModel(Path(options.folder), device="cpu", precision="float32", threads=0, pack=False)
    if fingerprint.content(Path(options.folder)).digest != options.digest:
        raise ModelUnavailable(f"{options.folder} was changed")  # or its export would be kept as that of another model
    options.make(partial(_describe, source), partial(_export, source), partial(_measure, options, source))


def _describe(source: TransformerModel) -> object:
    texts = source.tokenizer.read(PROOF_TEXTS)
    vectors = torch.nn.functional.normalize(torch.from_numpy(source.forward(texts, 0)))
    described = Description(
        tokenizer=source.serialized_tokenizer,
        truncated_side=source.truncated_side,
        max_tokens=source.max_tokens,
        prompts=source.prompts,
        padding=source.padding,
        vectors=vectors.tolist(),
    )
    return DESCRIPTION.dump_python(described, mode="json")


def _export(source: TransformerModel, name: str, file: Path) -> None:
    example = source.tensors(source.tokenizer.read(PROOF_TEXTS))
    onnx_export.export(_Chain(source.modules), example, file, eight_bit="blocks" if name == "onnx_int8" else None)


class _Chain(nn.Module):
    """A model as one network: tokens in, vectors out."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self._chain = nn.ModuleList(modules)
        if not all(getattr(module, "include_prompt", True) for module in modules):
            raise NotImplementedError("the model leaves out the prompt when it pools")

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return pretrained.embed(self._chain, inputs, 0)


def _measure(
    options: OnnxOptions, source: TransformerModel, networks: Mapping[str, OnnxNetwork]
) -> dict[Use, dict[str, float]]:
    """Processor time of one short query, and of one pass of passages, by backend."""
    pytorch = TransformerModel(Path(options.folder), device="cpu", precision=options.precision, threads=options.threads)
    trials: dict[Use, list[str]] = {"query": [PROOF_TEXTS[0]], "passages": [PROOF_TEXTS[-1]] * LONG_TEXTS}
    seconds: dict[Use, dict[str, float]] = {}
    for use, texts in trials.items():
        tokens = source.tokenizer.read(texts)
        rivals = {name: partial(_run, network, source, tokens) for name, network in networks.items()}
        seconds[use] = seconds_of({TORCH: partial(pytorch.forward, tokens, 0), **rivals}, TRIAL_SECONDS)
    return seconds


def _run(network: OnnxNetwork, source: TransformerModel, tokens: Sequence[Tokens]) -> object:
    return network(source.padding.arrays(tokens))


if __name__ == "__main__":
    prepare(OnnxOptions(**json.loads(sys.argv[1])))
