"""Export of a PyTorch transformer to a file for ONNX Runtime, in float32, or with linear layers and words in 8 bits.

8 bits, all symmetric and rounded to nearest:

blocks  `MatMulNBits` of ONNX Runtime: one scale for each 32 weights, and for as many activations. Cosine to float32
        with all-MiniLM-L6-v2: .9997 for a short query, .998 for 200 random words.
rows    Products of integers: one scale for the weights of an output, and one for the activations of a token, so that
        no text changes what is computed of another one. Two to three times as fast for long passes, and less exact: the
        bundled reranker's log-odds change by .2 (standard deviation), 6 % of how far they lie apart.

The vectors of words, most of the weights of a model of many languages, have one scale each.
"""

import copy
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from service.embedder.models.packed_linear import linear_layers

EightBit = Literal["blocks", "rows"]

BLOCK = 32
ROW_LIMIT = 64
"""Weights of `rows` have 7 bits: processors without VNNI add two products in 16 bits, which 8 would overflow."""
OPSET = 17
MIN_WORDS = 4_096
"""Rows of an embedding that is a vocabulary; those of positions are few."""

_exporting = threading.Lock()
"""An export sets global state of PyTorch."""


def export(network: nn.Module, inputs: Mapping[str, torch.Tensor], file: Path, *, eight_bit: EightBit | None) -> None:
    """Write a network that maps named arrays of tokens [n, length] to one tensor [n, ...].

    The network itself is not changed. Its parameters must be of float32 and on CPU. What it computes must not depend on
    values of its inputs by way of Python, which only comparing its output with that of the network can show: any error
    may be raised, and a wrong file be written.
    `inputs`: an example, of at least 2 texts and with padding, since axes of size 1 may be taken for constant.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")  # the fused one is made of slower parts when exported
    if eight_bit == "blocks":
        for parent, name, layer in linear_layers(network):
            if layer.in_features % BLOCK == 0 and layer.out_features > 1:
                setattr(parent, name, _BlockQuantizedLinear(layer))
    elif eight_bit == "rows":
        # What follows the stack of layers computes little, and nothing after it would even out what it loses.
        for stack in [module for module in network.modules() if isinstance(module, nn.ModuleList)]:
            for parent, name, layer in linear_layers(stack):
                setattr(parent, name, _RowQuantizedLinear(layer))
    if eight_bit:
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Embedding) and child.num_embeddings >= MIN_WORDS:
                    setattr(parent, name, _QuantizedEmbedding(child))
    axes = {name: {0: "texts", 1: "tokens"} for name in inputs}
    with _exporting, warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: see above
        torch.onnx.export(
            _Positional(network, tuple(inputs)),
            tuple(inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=["output"],
            dynamic_axes={**axes, "output": {0: "texts"}},
            opset_version=OPSET,
            custom_opsets={"com.microsoft": 1},
            dynamo=False,
        )


class _Positional(nn.Module):
    """Tracing passes inputs by position."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self._network, self._names = network, names

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self._network(**dict(zip(self._names, inputs, strict=True)))


class _QuantizedEmbedding(nn.Module):
    rows: torch.Tensor
    scales: torch.Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        weight = embedding.weight.detach()
        scales = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("rows", torch.round(weight / scales).to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.rows).float() * nn.functional.embedding(ids, self.scales)


class _BlockQuantizedLinear(nn.Module):
    """Stands for an `nn.Linear` in an export; it cannot compute here."""

    weight: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        blocks = linear.weight.detach().reshape(linear.out_features, -1, BLOCK)
        scales = blocks.abs().amax(2, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("weight", (torch.round(blocks / scales) + 128).to(torch.uint8))
        self.register_buffer("scales", scales.squeeze(2).contiguous())
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = _MatMulNBits.apply(inputs, self.weight, self.scales)  # type: ignore[no-untyped-call]
        return outputs if self.bias is None else outputs + self.bias


class _MatMulNBits(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, inputs: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return inputs.new_zeros((*inputs.shape[:-1], len(weight)))  # tracing needs the shape alone

    @staticmethod
    def symbolic(graph: Any, inputs: Any, weight: Any, scales: Any) -> Any:
        rows, blocks, _ = weight.type().sizes()
        output = graph.op(
            "com.microsoft::MatMulNBits",
            inputs,
            weight,
            scales,
            N_i=rows,
            K_i=blocks * BLOCK,
            bits_i=8,
            block_size_i=BLOCK,
            accuracy_level_i=4,
        )
        output.setType(inputs.type().with_sizes([None] * (inputs.type().dim() - 1) + [rows]))
        return output


class _RowQuantizedLinear(nn.Module):
    """Stands for an `nn.Linear` in an export; it cannot compute here."""

    weight: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / ROW_LIMIT
        self.register_buffer("weight", torch.round(weight / scales).to(torch.int8).T.contiguous())
        self.register_buffer("scales", scales.squeeze(1))
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = _RowMatMul.apply(inputs, self.weight, self.scales)  # type: ignore[no-untyped-call]
        return outputs if self.bias is None else outputs + self.bias


class _RowMatMul(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, inputs: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return inputs.new_zeros((*inputs.shape[:-1], weight.shape[1]))  # tracing needs the shape alone

    @staticmethod
    def symbolic(graph: Any, inputs: Any, weight: Any, scales: Any) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return graph.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        width, outputs = weight.type().sizes()
        middle = torch.tensor([128], dtype=torch.uint8)  # stands for 0
        largest = graph.op("ReduceMax", graph.op("Abs", inputs), axes_i=[-1], keepdims_i=1)
        floor = constant(1e-12, torch.float32)
        steps = graph.op("Mul", graph.op("Max", largest, floor), constant(1 / 127, torch.float32))
        flat = graph.op("Reshape", inputs, constant([-1, width], torch.int64))
        flat_steps = graph.op("Reshape", steps, constant([-1], torch.int64))
        zeros = graph.op("ConstantOfShape", graph.op("Shape", flat_steps), value_t=middle)
        rounded = graph.op("QuantizeLinear", flat, flat_steps, zeros, axis_i=0)
        one = constant(1.0, torch.float32)
        product = graph.op(
            "com.microsoft::MatMulIntegerToFloat", rounded, weight, one, scales, constant(128, torch.uint8)
        )
        leading = graph.op("Slice", graph.op("Shape", inputs), constant([0], torch.int64), constant([-1], torch.int64))
        shape = graph.op("Concat", leading, constant([outputs], torch.int64), axis_i=0)
        output = graph.op("Mul", graph.op("Reshape", product, shape), steps)
        output.setType(inputs.type().with_sizes([None] * (inputs.type().dim() - 1) + [outputs]))
        return output
