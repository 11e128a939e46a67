"""A transformer in ONNX Runtime on CPU, without PyTorch."""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.embedder.models.pass_budget import threads_for


class OnnxNetwork:
    """Arrays of tokens in, one array out. Safe to use from several threads at once."""

    def __init__(self, file: Path, threads: int) -> None:
        """`file`: made by `onnx_export`. `threads`: upper bound for one pass; 0: all cores."""
        self._file, self._threads = file, threads

    def __call__(
        self, arrays: Mapping[str, npt.NDArray[np.int64]], threads: int | None = None
    ) -> npt.NDArray[np.float32]:
        """The output for inputs [n, longest] by name. Those that the network does not read are left out.

        `threads` 1: of the calling thread alone.
        """
        alone = threads == 1 or threads_for(arrays["input_ids"].size, 2) == 1
        session = self._single if alone else self._parallel
        output: npt.NDArray[np.float32]
        (output,) = session.run(None, {one.name: arrays[one.name] for one in session.get_inputs()})
        return output

    # The threads of a session are fixed. Those that a short text does not need would wait for each other.
    @cached_property
    def _single(self) -> onnxruntime.InferenceSession:
        return _session(self._file, 1)

    @cached_property
    def _parallel(self) -> onnxruntime.InferenceSession:
        return self._single if self._threads == 1 else _session(self._file, self._threads)


def _session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait would otherwise keep cores busy that PostgreSQL and other processes need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime's own memory only ever grows, to three times what the longest pass needs; malloc is as quick here.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def seconds_of(rivals: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Processor time of the shortest run of each rival: all run in turns for about `seconds`, after once to warm up.

    Of all threads of the process, and hardly touched by what else the machine does.
    """
    for run in rivals.values():
        run()
    best = dict.fromkeys(rivals, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or float("inf") in best.values():
        for name, run in rivals.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - started)
    return best
