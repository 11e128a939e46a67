"""Export a cross-encoder for ONNX Runtime and measure which backend is faster: the program of `onnx_cross_encoder`."""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from service.core.errors import ModelUnavailable
from service.embedder.models import onnx_export
from service.embedder.models.onnx_choice import TORCH, OnnxOptions
from service.embedder.models.onnx_network import OnnxNetwork, seconds_of
from service.embedder.reranker.cross_encoder import PackedCrossEncoder
from service.embedder.reranker.onnx_cross_encoder import DESCRIPTION, USE, OnnxCrossEncoder, digest, proof_log_odds
from service.embedder.reranker.pair_model import PairModel
from service.spaces.model_verification import CANARY_TEXTS

TRIAL_SECONDS = 2.0
WORDS = ((16, 40), (8, 150))
"""Passages of the passes of a trial, and words of each: about excerpts, and chunks."""


def prepare(options: OnnxOptions) -> None:
    """Make what is not there yet. Any error may be raised: not every model can be exported."""
    source = PackedCrossEncoder(options.folder, device="cpu", precision="float32", threads=0, pack=False)
    if digest(options.folder) != options.digest:
        raise ModelUnavailable(f"{options.name} was changed")  # or its export would be kept as that of another model
    options.make(partial(_describe, source), partial(_export, source), partial(_measure, options, source))


def _describe(source: PackedCrossEncoder) -> object:
    return DESCRIPTION.dump_python((source.described, proof_log_odds(source).tolist()), mode="json")


def _export(source: PackedCrossEncoder, name: str, file: Path) -> None:
    pairs, _ = source.tokens(CANARY_TEXTS[0], CANARY_TEXTS)
    eight_bit: onnx_export.EightBit | None = "rows" if name == "onnx_int8" else None
    onnx_export.export(_Logits(source.network), source.tensors(pairs), file, eight_bit=eight_bit)


class _Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(**inputs).logits
        return logits


def _measure(
    options: OnnxOptions, source: PackedCrossEncoder, networks: Mapping[str, OnnxNetwork]
) -> dict[str, dict[str, float]]:
    """Processor time of a pass of excerpts and one of chunks together, by backend."""
    settings = {"precision": options.precision, "threads": options.threads}
    rivals: dict[str, PairModel] = {TORCH: PackedCrossEncoder(options.folder, device="cpu", **settings)}  # type: ignore[arg-type]
    rivals |= {name: OnnxCrossEncoder(source.described, network) for name, network in networks.items()}
    words = " ".join(CANARY_TEXTS * 10).split()
    passes = [source.tokens(CANARY_TEXTS[0], [" ".join(words[:most])] * count)[0] for count, most in WORDS]

    def run(model: PairModel) -> None:
        for pairs in passes:
            model.forward(pairs)

    return {USE: seconds_of({name: partial(run, model) for name, model in rivals.items()}, TRIAL_SECONDS)}


if __name__ == "__main__":
    prepare(OnnxOptions(**json.loads(sys.argv[1])))
