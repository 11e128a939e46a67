"""A cross-encoder on CPU in ONNX Runtime: `PackedCrossEncoder` without PyTorch in memory.

What `onnx_prepare` exported and measured is kept in the data folder and proven at every load. Only the order that
log-odds give counts, and how far they lie apart, so the proof is that they differ little beside that.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from service.embedder.models import fingerprint, source
from service.embedder.models.onnx_choice import TORCH, OnnxOptions, fastest, prepared, report
from service.embedder.models.onnx_network import OnnxNetwork
from service.embedder.models.pass_budget import CPU_BATCH_TOKENS, CPU_PASS_OVERHEAD
from service.embedder.models.text_tokenizer import Tokens
from service.embedder.reranker import adapter
from service.embedder.reranker.pair_model import PairDescription, PairModel
from service.spaces.model_verification import CANARY_TEXTS

USE: Literal["pairs"] = "pairs"
PROGRAM = "service.embedder.reranker.onnx_prepare"
PROOF_ERROR = 0.1
"""Of log-odds, root mean square, as a share of their standard deviation."""

DESCRIPTION = TypeAdapter(tuple[PairDescription, list[float]])
"""With the log-odds of `proof_pairs` by PyTorch in float32."""


class OnnxCrossEncoder(PairModel):
    """Safe to use from several threads at once."""

    def __init__(self, described: PairDescription, network: OnnxNetwork, *, batch_tokens: int = 0) -> None:
        """`batch_tokens`: padded tokens of one pass; 0: what suits a CPU."""
        super().__init__(described, batch_tokens=batch_tokens or CPU_BATCH_TOKENS, pass_overhead=CPU_PASS_OVERHEAD)
        self._network = network

    def forward(self, pairs: Sequence[Tokens]) -> npt.NDArray[np.float32]:
        return self._network(self._padding.arrays(pairs)).reshape(len(pairs))


def load(options: OnnxOptions, batch_tokens: int) -> OnnxCrossEncoder | None:
    """None, logged with the reason, where PyTorch has to run the passes."""
    model, refusal = None, "it is faster, or nothing else gives the same order"
    try:
        values, seconds, networks = prepared(options, PROGRAM)
        described, expected = DESCRIPTION.validate_python(values)
        models: dict[str, OnnxCrossEncoder] = {}

        def proven(name: str) -> bool:
            models[name] = OnnxCrossEncoder(described, networks[name], batch_tokens=batch_tokens)
            return _proven(models[name], expected)

        backend = fastest(options.rivals, seconds[USE], proven)
        model = models.get(backend)
    except Exception as error:  # of exports, of files, of ONNX Runtime
        backend, refusal = TORCH, str(error) or type(error).__name__
    report(options.name, {USE: backend}, None if model else refusal)
    return model


def digest(name: str) -> str:
    """Of everything that determines what a reranker computes. ModelUnavailable if there is none of that name."""
    if not adapter.is_adapter(name):
        contents = [fingerprint.content(source.folder(*source.split(name))).digest]
    else:
        folder = adapter.folder_of(name)
        backbone = source.folder(*source.split(adapter.describe(folder).backbone))
        contents = [fingerprint.content(one).digest for one in (folder, backbone)]
        contents.append((folder / adapter.CONFIG).read_text("utf-8"))
    return hashlib.sha256("\n".join(["reranker", *contents]).encode()).hexdigest()[:32]


def proof_log_odds(model: PairModel) -> npt.NDArray[np.float32]:
    """Of each canary text with each other one, and with all of them together, in passes with padding."""
    passages = [*CANARY_TEXTS, " ".join(CANARY_TEXTS * 3)]
    by_query = [model.tokens(query, passages)[0] for query in CANARY_TEXTS]
    return np.concatenate([model.forward(pairs) for pairs in zip(*by_query, strict=True)])


def _proven(model: OnnxCrossEncoder, expected: Sequence[float]) -> bool:
    difference = proof_log_odds(model) - np.array(expected, np.float32)
    return bool(np.sqrt(np.mean(difference**2)) <= PROOF_ERROR * np.std(expected))
