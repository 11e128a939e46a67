"""Where a model runs, in which precision, and how much it computes in one forward pass."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from service.core.errors import ModelUnavailable
from service.embedder.models.pass_budget import CPU_BATCH_TOKENS, threads_for
from service.embedder.models.text_tokenizer import Tokens


def choose(device: str) -> torch.device:
    """`auto`: a CUDA device, else Apple's, else the CPU. ModelUnavailable if the named device is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelUnavailable(f"There is no device {device!r}: use auto, cpu, cuda, cuda:N or mps.") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(chosen.type, False) or (
        chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
    ):
        raise ModelUnavailable(f"This machine has no usable device {device!r}.")
    return chosen


def precision(device: torch.device, wanted: str) -> torch.dtype:
    """`auto`: bfloat16 if the device multiplies in it natively, else float32.

    A CPU without such instructions emulates bfloat16, slower than float32, and `mkldnn._is_mkldnn_bf16_supported` is
    true there too. So the instruction sets themselves are checked.
    """
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]
    native = False
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        has = torch.cpu.get_capabilities()
        native = any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def batch_tokens(device: torch.device) -> int:
    """Padded tokens of one pass. On a GPU enough to hide the launching of kernels (`loadtests.encode --gpu`)."""
    return CPU_BATCH_TOKENS if device.type == "cpu" else 65536


def use_threads(tokens: int, most: int) -> None:
    """Set how many cores the calling thread, and no other, uses for a pass of `tokens` padded tokens. Costs nothing."""
    torch.set_num_threads(threads_for(tokens, most))


def tensors(arrays: Mapping[str, npt.NDArray[np.int64]], device: torch.device) -> dict[str, torch.Tensor]:
    """The inputs of a model on its device. To a CUDA device they go from pinned memory: nothing waits for it."""
    found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type == "cuda":
        found = {name: tensor.pin_memory() for name, tensor in found.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in found.items()}


@contextmanager
def forward_pass(device: torch.device, texts: Sequence[Tokens], threads: int, what: str) -> Iterator[None]:
    """One pass, on CPU in at most `threads` threads. MemoryError, with the device's cache freed, if it does not fit."""
    if device.type == "cpu":
        use_threads(len(texts) * max(map(len, texts)), threads)
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(f"no room on {device} for {len(texts)} {what}") from error
