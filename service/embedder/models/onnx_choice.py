"""Which backend runs a model on CPU: exports and durations are made once, in a process of their own, and kept.

PyTorch needs hundreds of megabytes, which a process cannot give back. The other process ends and leaves files.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.core import metrics
from service.embedder.models.kept_files import KeptFiles, machine, missing
from service.embedder.models.onnx_network import OnnxNetwork

log = logging.getLogger(__name__)

TORCH = "torch"
NETWORKS = ("onnx_float32", "onnx_int8")
HANDICAPS = {"onnx_float32": 1.0, "onnx_int8": 1.1, TORCH: 1.2}
"""Times durations: what costs exactness, or the memory of PyTorch, must gain more than a little."""
PREPARE_SECONDS = 180.0
"""About ten on a machine with nothing else to do. What is ready when they end is there at the next start."""

Networks = Mapping[str, OnnxNetwork]
Seconds = Mapping[Any, Mapping[str, float]]
"""Processor time by what a pass is for and by backend."""


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

    @property
    def exported(self) -> Sequence[str]:
        """The networks that may be used."""
        return NETWORKS if self.precision == "auto" else NETWORKS[:1]

    @property
    def rivals(self) -> Sequence[str]:
        return (*self.exported, TORCH) if self.backend == "auto" else self.exported

    def make(
        self,
        describe: Callable[[], object],
        export: Callable[[str, Path], None],
        measure: Callable[[Networks], Seconds],
    ) -> None:
        """Make what is not there yet, in the process for it. `export` writes the network of a name to a file."""
        self.kept.value("description", describe)
        networks = {name: OnnxNetwork(self.kept.file(name, partial(export, name)), self.threads) for name in NETWORKS}
        self.kept.value(self.seconds, lambda: measure(networks))


def fastest(names: Iterable[str], seconds: Mapping[str, float], proven: Callable[[str], bool]) -> str:
    """The fastest of these backends that gives what PyTorch gives; PyTorch if there is none."""
    ranked = sorted(names, key=lambda name: seconds[name] * HANDICAPS[name])
    return next((name for name in ranked if name == TORCH or proven(name)), TORCH)


def report(name: str, backends: Mapping[Any, str], refusal: str | None) -> None:
    """Say what runs the passes of a model, by what they are for. `refusal`: why all of them run in PyTorch."""
    for use, backend in backends.items():
        for one in (*NETWORKS, TORCH):
            metrics.MODEL_BACKEND.labels(name, use, one).set(one == backend)
    if refusal is None:
        log.info("model loaded", extra={"model": name, "backends": dict(backends)})
    else:
        log.warning("the model runs in PyTorch", extra={"model": name, "reason": refusal})


def prepared(options: OnnxOptions, program: str) -> tuple[Any, Seconds, Networks]:
    """The description, durations and networks: from before, or made now by another process, which runs `program`.

    It gets the options as JSON and calls their `make`. RuntimeError, OSError and others with the reason.
    """

    def read() -> tuple[Any, Seconds, Networks]:
        networks = {name: OnnxNetwork(options.kept.file(name, missing), options.threads) for name in NETWORKS}
        return options.kept.value("description", missing), options.kept.value(options.seconds, missing), networks

    with options.kept.locked():
        with suppress(FileNotFoundError):
            return read()
        log.info("model is exported for ONNX Runtime and measured", extra={"model": options.name})
        done = subprocess.run(  # noqa: S603 the command is our own
            [sys.executable, "-m", program, json.dumps(asdict(options))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PREPARE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(" ".join(done.stderr.strip().splitlines()[-1:]) or f"exit status {done.returncode}")
        return read()
