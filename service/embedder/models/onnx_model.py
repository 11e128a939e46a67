"""A sentence-transformers model on CPU in ONNX Runtime: `TransformerModel` without PyTorch in memory.

What `onnx_prepare` exported and measured, once and in a process of its own, is kept in the data folder and proven at
every load: the vectors must be those of PyTorch. Where PyTorch was faster for long passes it is loaded when the first
of them comes; until it is ready they run here.
"""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from service.core import metrics
from service.core.ids import Role
from service.core.vector_math import unit_rows
from service.embedder.models.kept_files import KeptFiles, machine, missing
from service.embedder.models.onnx_network import OnnxNetwork
from service.embedder.models.padding import Padding
from service.embedder.models.pass_budget import CPU_BATCH_TOKENS
from service.embedder.models.text_tokenizer import TextTokenizer, Tokens
from service.spaces.model_verification import CANARY_COSINE, CANARY_TEXTS

if TYPE_CHECKING:
    from service.embedder.models.transformer import TransformerModel

log = logging.getLogger(__name__)

Use = Literal["query", "passages"]
TORCH = "torch"
NETWORKS = ("onnx_float32", "onnx_int8")
HANDICAPS = {"onnx_float32": 1.0, "onnx_int8": 1.1, TORCH: 1.2}
"""Times durations: what costs exactness, or the memory of PyTorch, must gain more than a little."""
QUERY_TOKENS = 128
"""Padded tokens up to which a pass counts as one of short queries: reading the weights takes much of its time."""
PROOF_TEXTS = (*CANARY_TEXTS, " ".join(CANARY_TEXTS * 3))
PREPARE_SECONDS = 180.0
"""About ten on a machine with nothing else to do. What is ready when they end is there at the next start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxOptions:
    """Which model is exported where. `digest`: of its content. `folder`: its files. `root`: for what is kept.

    `backend` auto: what is fastest; onnx: PyTorch only if nothing else works. `precision` float32: no 8 bits.
    """

    name: str
    folder: str
    root: str
    digest: str
    backend: str
    precision: str
    threads: int

    @property
    def kept(self) -> KeptFiles:
        return KeptFiles(self.root, self.digest)

    @property
    def seconds(self) -> str:
        """Under what name durations are kept: with everything that they depend on."""
        return f"seconds-{self.precision}-{machine(self.threads)}"


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
    try:
        described, seconds, networks = _prepared(options)
        tokenizer = TextTokenizer(described.tokenizer, described.max_tokens, direction=described.truncated_side)
        proof = tokenizer.read(PROOF_TEXTS)

        def fastest(use: Use, names: Sequence[str]) -> str:
            ranked = sorted(names, key=lambda name: seconds[use][name] * HANDICAPS[name])
            return next(
                (name for name in ranked if name == TORCH or _proven(networks[name], described, proof, use)), TORCH
            )

        exported = NETWORKS if options.precision == "auto" else NETWORKS[:1]
        rivals = (*exported, TORCH) if options.backend == "auto" else exported
        query, passages = fastest("query", rivals), fastest("passages", rivals)
        # Until PyTorch is loaded, the network that is in memory for queries does.
        choices = ((query,), exported) if passages == TORCH else ((passages,),)
        long = next((one for one in map(partial(fastest, "passages"), choices) if one != TORCH), TORCH)
        reason = "it is faster, or nothing else gives the same vectors"
        if TORCH not in (query, long):
            backends = {"query": query, "passages": passages}
            model = OnnxModel(
                described, tokenizer, networks[query], networks[long], pytorch if passages == TORCH else None
            )
    except Exception as error:  # of exports, of files, of ONNX Runtime
        reason = str(error) or type(error).__name__
    for use, backend in backends.items():
        for one in (*NETWORKS, TORCH):
            metrics.MODEL_BACKEND.labels(options.name, use, one).set(one == backend)
    if model is None:
        log.warning("the model runs in PyTorch", extra={"model": options.name, "reason": reason})
    else:
        log.info("model loaded", extra={"model": options.name, "backends": backends, "dimensions": model.dimensions})
    return model


def _prepared(options: OnnxOptions) -> tuple[Description, Mapping[Use, Mapping[str, float]], Mapping[str, OnnxNetwork]]:
    """The description, how long passes took here, and the networks: from before, or made by another process now."""

    def read() -> tuple[Description, Any, Mapping[str, OnnxNetwork]]:
        described = DESCRIPTION.validate_python(options.kept.value("description", missing))
        networks = {name: OnnxNetwork(options.kept.file(name, missing), options.threads) for name in NETWORKS}
        return described, options.kept.value(options.seconds, missing), networks

    with options.kept.locked():
        with suppress(FileNotFoundError):
            return read()
        command = [sys.executable, "-m", "service.embedder.models.onnx_prepare", json.dumps(asdict(options))]
        log.info("model is exported for ONNX Runtime and measured", extra={"model": options.name})
        done = subprocess.run(  # noqa: S603 the command is our own
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PREPARE_SECONDS, check=False
        )
        if done.returncode:
            raise RuntimeError(" ".join(done.stderr.strip().splitlines()[-1:]) or f"exit status {done.returncode}")
        return read()


def _proven(network: OnnxNetwork, described: Description, texts: Sequence[Tokens], use: Use) -> bool:
    """Does it give the vectors of PyTorch: short texts each alone for queries, else all texts in one padded pass?"""
    passes = [texts] if use == "passages" else [[text] for text in texts[: len(CANARY_TEXTS)]]
    # In one thread: threads do not change what is computed, and another session would take memory.
    rows = np.concatenate([network(described.padding.arrays(batch), threads=1) for batch in passes])
    cosines = (unit_rows(rows) * np.array(described.vectors, np.float32)[: len(rows)]).sum(axis=1)
    return bool(cosines.min() >= CANARY_COSINE)
