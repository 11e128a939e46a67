"""A sentence-transformers model on CPU in ONNX Runtime: `TransformerModel` without PyTorch in memory.

What `onnx_prepare` exported and measured, once and in a process of its own, is kept in the data folder and proven at
every load: the vectors must be those of PyTorch. Where PyTorch was faster for long passes it is loaded when the first
of them comes; until it is ready they run here.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from service.core.ids import Role
from service.core.vector_math import unit_rows
from service.embedder.models.onnx_choice import TORCH, OnnxOptions, fastest, prepared, report
from service.embedder.models.onnx_network import OnnxNetwork
from service.embedder.models.padding import Padding
from service.embedder.models.pass_budget import CPU_BATCH_TOKENS
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens
from service.spaces.model_verification import CANARY_COSINE, CANARY_TEXTS

if TYPE_CHECKING:
    from service.embedder.models.transformer import TransformerModel

log = logging.getLogger(__name__)

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
        pytorch: Callable[[], "TransformerModel"] | None = None,
    ) -> None:
        """`short`, `long`: for passes of up to `QUERY_TOKENS`, and others. `pytorch`: loads what is faster there."""
        self.max_tokens, self.prompts = described.max_tokens, described.prompts
        self.dimensions = len(described.vectors[0])
        self.tokenizer = tokenizer
        self._padding, self._short, self._long = described.padding, short, long
        self._load_pytorch, self._loading = pytorch, threading.Lock()
        self._pytorch: TransformerModel | None = None

    def prompt_length(self, prompt: str) -> int:
        """Matters to models that leave the prompt out when they pool, which are not exported."""
        return 0

    def forward(self, texts: Sequence[Tokens], prompt_length: int) -> npt.NDArray[np.float32]:
        """One pass over all texts: [n, dimensions], of any length."""
        if len(texts) * max(map(len, texts)) <= QUERY_TOKENS:
            return self._short(self._padding.arrays(texts))
        if self._load_pytorch is not None and self._loading.acquire(blocking=False):  # once
            threading.Thread(target=self._load, args=[self._load_pytorch], daemon=True).start()
        if self._pytorch is not None:
            return self._pytorch.forward(texts, prompt_length)
        return self._long(self._padding.arrays(texts))

    def _load(self, pytorch: Callable[[], "TransformerModel"]) -> None:
        try:
            self._pytorch = pytorch()
        except Exception as error:  # long passes go on as they are
            log.warning("long passes do not run in PyTorch", extra={"reason": str(error)})


def load(options: OnnxOptions, pytorch: Callable[[], "TransformerModel"]) -> OnnxModel | None:
    """None, logged with the reason, where PyTorch (loaded by `pytorch`) has to run all passes."""
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
        # Until PyTorch is loaded, the network that is in memory for queries does.
        choices = ((query,), options.exported) if passages == TORCH else ((passages,),)
        long = next((one for one in map(partial(choose, "passages"), choices) if one != TORCH), TORCH)
        if TORCH not in (query, long):
            backends, refusal = {"query": query, "passages": passages}, None
            later = pytorch if passages == TORCH else None
            model = OnnxModel(described, tokenizer, networks[query], networks[long], later)
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
