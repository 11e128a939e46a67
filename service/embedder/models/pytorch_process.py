"""A model in PyTorch, in a process of its own that runs while there is much to encode.

PyTorch takes hundreds of megabytes, which a process gives back only by its end.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from service.core.child_process import ChildDied, ChildProcess
from service.core.errors import ModelUnavailable
from service.embedder.models import fingerprint
from service.embedder.models.onnx_choice import PREPARE_SECONDS, OnnxOptions
from service.embedder.models.text_tokenizer import Tokens

if TYPE_CHECKING:
    from service.embedder.models.transformer import TransformerModel

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.float32]

BUSY_SECONDS = 5.0
"""Time in passes after which it is started: as long as a start takes. Half of it is forgotten every `IDLE_SECONDS`."""
IDLE_SECONDS = 30.0
"""Without a pass, after which it ends."""
PASS_SECONDS = 120.0
"""A pass that takes longer has failed. A tenth of a second is usual."""

_model: "TransformerModel"
"""In the process of its own."""


class PyTorchProcess:
    """Safe to use from several threads at once."""

    def __init__(self, options: OnnxOptions) -> None:
        """`options`: name the model, its content, precision and threads."""
        self._options = options
        self._turn, self._starting = threading.Lock(), threading.Lock()
        self._child: ChildProcess | None = None
        """While the model is in it."""
        self._busy, self._used = 0.0, time.monotonic()

    @property
    def running(self) -> bool:
        return self._child is not None

    def forward(self, texts: Sequence[Tokens], prompt_length: int, here: Callable[[], Rows]) -> Rows:
        """One pass in the other process; by `here` in this one, where that does not run, is busy, or has died."""
        started, rows = time.monotonic(), None
        if self._child is not None and self._turn.acquire(blocking=False):
            try:
                if self._child is not None:
                    rows = self._child.compute(_forward, texts, prompt_length, seconds=PASS_SECONDS)
            except ChildDied:
                self._child = None
                log.warning("PyTorch has died; long passes run in ONNX Runtime", extra={"model": self._options.name})
            finally:
                self._turn.release()
        rows = here() if rows is None else rows
        ended = time.monotonic()
        self._busy = self._busy * 0.5 ** (max(0.0, started - self._used) / IDLE_SECONDS) + ended - started
        self._used = ended
        if self._busy > BUSY_SECONDS and self._starting.acquire(blocking=False):
            threading.Thread(target=self._run, daemon=True).start()
        return rows

    def _run(self) -> None:
        """The life of one process."""
        try:
            with ChildProcess(background=False) as child:
                child.compute(_load, self._options, seconds=PREPARE_SECONDS)
                self._child = child
                while self._child is not None and time.monotonic() - self._used < IDLE_SECONDS:
                    time.sleep(IDLE_SECONDS / 30)
                with self._turn:
                    self._child = None
            self._busy = 0.0
            self._starting.release()
        except Exception as error:  # it is not tried again
            log.warning("long passes do not run in PyTorch", extra={"reason": str(error) or type(error).__name__})


def _load(options: OnnxOptions) -> None:
    global _model
    from service.embedder.models.transformer import TransformerModel

    folder = Path(options.folder)
    _model = TransformerModel(folder, device="cpu", precision=options.precision, threads=options.threads)
    if fingerprint.content(folder).digest != options.digest:
        raise ModelUnavailable(f"{folder.name} was changed.")


def _forward(texts: Sequence[Tokens], prompt_length: int) -> Rows:
    return _model.forward(texts, prompt_length)
