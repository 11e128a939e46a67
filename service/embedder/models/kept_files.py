"""What is made from a model once and kept in the data folder: its export for ONNX Runtime, and what was measured."""

import fcntl
import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from service.core.cores import usable_cores

log = logging.getLogger(__name__)

FORMAT = 2
"""Number of the way in which these files are made: another one makes them anew."""


class KeptFiles:
    """The folder for one model and this version of ONNX Runtime. It may be deleted while no process uses it."""

    def __init__(self, root: str | Path, digest: str) -> None:
        """`digest`: of everything that determines what the model computes, in characters of a file name."""
        self._folder = Path(root) / f"{digest}-{FORMAT}-{version('onnxruntime')}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While this is open, other processes wait that want the same: they find what was made."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def file(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file that `make` writes to the path that it is given; from before, if its bytes are still the same."""
        for kept in self._folder.glob(f"{name}.*.onnx"):
            if _digest(kept) == kept.suffixes[-2][1:]:
                return kept
            log.warning("a kept file is damaged and made anew", extra={"file": str(kept)})
            kept.unlink(missing_ok=True)
        with self._new_file() as made:
            make(made)
            return made.rename(self._folder / f"{name}.{_digest(made)}.onnx")

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """A value of JSON, from before or by `make`."""
        path = self._folder / f"{name}.json"
        with suppress(OSError, ValueError):
            return json.loads(path.read_text("utf-8"))
        value = make()
        with self._new_file() as made:
            made.write_text(json.dumps(value), "utf-8")
            made.rename(path)
        return value

    @contextmanager
    def _new_file(self) -> Iterator[Path]:
        """A path that is left to be renamed: a file that was not completely written is never found."""
        path = self._folder / f"{uuid4().hex}.new"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def missing(_: object = None) -> NoReturn:
    """For `make`, where nothing is to be made."""
    raise FileNotFoundError


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


@cache
def machine(threads: int) -> str:
    """A short name for everything that decides which backend is faster here."""
    facts: Mapping[str, Any] = {
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": threads,
        "limits": {name: os.environ.get(name) for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")},
        "versions": {name: version(name) for name in ("torch", "onnxruntime")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _processor() -> list[str]:
    """Model and instruction sets."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n")
        wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        if found := sorted({line for line in lines if line.startswith(wanted)}):
            return found
    return [platform.machine(), platform.processor()]
