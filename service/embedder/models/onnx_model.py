"""A sentence-transformers model on CPU in ONNX Runtime: `TransformerModel` without PyTorch in memory.

What `onnx_prepare` exported and measured, once and in a process of its own, is kept in the data folder and proven at
every load: the vectors must be those of PyTorch. Where PyTorch was faster for long passes, `PyTorchProcess` runs them
while there are many; else they run here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from service.core.ids import Role
from service.core.vector_math import unit_rows
from service.embedder.models.onnx_choice import TORCH, OnnxOptions, fastest, prepared, report
from service.embedder.models.onnx_network import OnnxNetwork
from service.embedder.models.padding import Padding
from service.embedder.models.pass_budget import CPU_BATCH_TOKENS
from service.embedder.models.pytorch_process import PyTorchProcess
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens
from service.spaces.model_verification import CANARY_COSINE, CANARY_TEXTS

Use = Literal["query", "passages"]
PROGRAM = "service.embedder.models.onnx_prepare"
QUERY_TOKENS = 128
"""Padded tokens up to which a pass counts as one of short queries: reading the weights takes much of its time."""
PROOF_TEXTS = (*CANARY_TEXTS, " ".join(CANARY_TEXTS * 3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What has to be known of a model besides its weights. `vectors`: by PyTorch in float32, of `PROOF_TEXTS`."""

    tokenizer: str
    truncated_side: str
    max_tokens: int
    prompts: dict[Role, str]
    padding: Padding
    vectors: list[list[float]]


DESCRIPTION = TypeAdapter(Description)


class OnnxModel:
    """Tokens in, pooled vectors out. Safe to use from several threads at once."""

    batch_tokens = CPU_BATCH_TOKENS
    streams = 1
    image_tokens = 0

    def __init__(
        self,
        described: Description,
        tokenizer: TextTokenizer,
        short: OnnxNetwork,
        long: OnnxNetwork,
        pytorch: PyTorchProcess | None = None,
    ) -> None:
        """`short`, `long`: for passes of up to `QUERY_TOKENS`, and others. `pytorch`: where it is faster there."""
        self.max_tokens, self.prompts = described.max_tokens, described.prompts
        self.dimensions = len(described.vectors[0])
        self.tokenizer = tokenizer
        self._padding, self._short, self._long, self._pytorch = described.padding, short, long, pytorch

    def prompt_length(self, prompt: str) -> int:
        """Matters to models that leave the prompt out when they pool, which are not exported."""
        return 0

    def forward(self, texts: Sequence[Tokens], prompt_length: int) -> npt.NDArray[np.float32]:
        """One pass over all texts: [n, dimensions], of any length."""
        if len(texts) * max(map(len, texts)) <= QUERY_TOKENS:
            return self._short(self._padding.arrays(texts))
        if self._pytorch is None:
            return self._long(self._padding.arrays(texts))
        return self._pytorch.forward(texts, prompt_length, lambda: self._long(self._padding.arrays(texts)))


def load(options: OnnxOptions) -> OnnxModel | None:
    """None, logged with the reason, where PyTorch has to run all passes."""
    model = None
    backends: dict[Use, str] = {"query": TORCH, "passages": TORCH}
    refusal: str | None = "it is faster, or nothing else gives the same vectors"
    try:
        values, seconds, networks = prepared(options, PROGRAM)
        described = DESCRIPTION.validate_python(values)
        tokenizer = TextTokenizer(described.tokenizer, described.max_tokens, direction=described.truncated_side)
        proof = tokenizer.read(PROOF_TEXTS)

        def choose(use: Use, names: Sequence[str]) -> str:
            return fastest(names, seconds[use], lambda name: _proven(networks[name], described, proof, use))

        query, passages = choose("query", options.rivals), choose("passages", options.rivals)
        # While PyTorch does not run, the network that is in memory for queries does.
        choices = ((query,), options.exported) if passages == TORCH else ((passages,),)
        long = next((one for one in map(partial(choose, "passages"), choices) if one != TORCH), TORCH)
        if TORCH not in (query, long):
            backends, refusal = {"query": query, "passages": passages}, None
            pytorch = PyTorchProcess(options) if passages == TORCH else None
            model = OnnxModel(described, tokenizer, networks[query], networks[long], pytorch)
    except Exception as error:  # of exports, of files, of ONNX Runtime
        refusal = str(error) or type(error).__name__
    report(options.name, backends, refusal)
    return model


def _proven(network: OnnxNetwork, described: Description, texts: Sequence[Tokens], use: Use) -> bool:
    """Does it give the vectors of PyTorch: short texts each alone for queries, else all texts in one padded pass?"""
    passes = [texts] if use == "passages" else [[text] for text in texts[: len(CANARY_TEXTS)]]
    # In one thread: threads do not change what is computed, and another session would take memory.
    rows = np.concatenate([network(described.padding.arrays(batch), threads=1) for batch in passes])
    cosines = (unit_rows(rows) * np.array(described.vectors, np.float32)[: len(rows)]).sum(axis=1)
    return bool(cosines.min() >= CANARY_COSINE)
