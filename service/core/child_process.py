"""Slow computations in a process of their own, of low priority.

numpy's eigenvalues and some imports hold Python's lock from beginning to end: in a thread, a few of them kept the event
loop from its turn for .75 s on two busy cores.
"""

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

T = TypeVar("T")

_NICENESS = 10
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(eq=False)
class ChildProcess:
    """An async context manager: a process that computes one thing after another, and ends with it.

    Where this process is killed, its child reads the end of its input, and ends too.
    """

    _process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()  # which also ends the thread that waits for its answer
            await asyncio.to_thread(self._process.communicate)

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """What the function of a module gives for the arguments; all of them can be pickled. Raises what it raises."""
        if self._process is None:
            self._process = await asyncio.to_thread(_start)
        return await asyncio.to_thread(_computed, self._process, work, args)


def _start() -> subprocess.Popen[bytes]:
    # Not by asyncio: uvloop forks, which copies the page tables of a process that holds models, for .1 s on the loop.
    return subprocess.Popen(  # noqa: S603  our own module
        (sys.executable, "-m", __name__),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | _ONE_THREAD,
        start_new_session=True,  # an interrupt from the keyboard is for this process, which then ends the child
    )


def _computed(process: subprocess.Popen[bytes], work: Callable[..., T], args: tuple[Any, ...]) -> T:
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump((work, args), process.stdin)
    process.stdin.flush()
    result, error = pickle.load(process.stdout)  # noqa: S301  of our own child
    if error is not None:
        raise error
    computed: T = result
    return computed


def _serve() -> None:
    os.nice(_NICENESS)
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    while True:
        try:
            work, args = pickle.load(given)  # noqa: S301  of our own parent
        except EOFError:
            return
        result = error = None
        try:
            result = work(*args)
        except Exception as raised:
            error = raised
        pickle.dump((result, error), answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
