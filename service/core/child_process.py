"""Slow computations in a process of their own, by default of low priority.

numpy's eigenvalues and some imports hold Python's lock from beginning to end: in a thread, a few of them kept the event
loop from its turn for .75 s on two busy cores.
"""

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Timer
from typing import Any, Self, TypeVar

from service.core.errors import Overloaded

T = TypeVar("T")

MAX_WAITING = 8
_NICENESS = 10
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ChildDied(EOFError):
    """A computation took more time or memory than it may, or crashed."""


@dataclass(eq=False)
class ChildProcess:
    """A context manager, async or not: a process that computes one thing after another, and ends with it.

    `memory_bytes`: the most that it may allocate (on Linux). `background`: one thread, of low priority. Where this
    process is killed, its child reads the end of its input, and ends too.
    """

    memory_bytes: int = 0
    background: bool = True
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # which also ends the thread that waits for its answer
            with suppress(BrokenPipeError):  # of what the child no longer read
                process.communicate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.__exit__)

    async def run(self, work: Callable[..., T], *args: Any, seconds: float | None = None) -> T:
        """`compute`, in a thread."""
        return await asyncio.to_thread(self.compute, work, *args, seconds=seconds)

    def compute(self, work: Callable[..., T], *args: Any, seconds: float | None = None) -> T:
        """What the function of a module gives for the arguments; all of them can be pickled. Raises what it raises.

        ChildDied where it does not end in so many seconds, or ends the process; the next call starts another one.
        """
        if self._process is None:
            self._process = _start(self.memory_bytes, self.background)
        process = self._process
        timer = Timer(seconds or 0, process.kill)
        if seconds is not None:
            timer.start()
        try:
            return _computed(process, work, args)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            self.__exit__()
            raise ChildDied from error
        finally:
            timer.cancel()


@dataclass(eq=False)
class ComputationTurns:
    """One child process at a time, so that all who share the turns cannot take more than one core and its memory."""

    _running: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting: int = 0

    @asynccontextmanager
    async def child(self, memory_bytes: int = 0) -> AsyncIterator[ChildProcess]:
        """A process when it is the caller's turn. Raises Overloaded where too many wait."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded("too many computations are waiting; try again later", retry_after=5.0)
        self._waiting += 1
        try:
            async with self._running, ChildProcess(memory_bytes) as process:
                yield process
        finally:
            self._waiting -= 1


def _start(memory_bytes: int, background: bool) -> subprocess.Popen[bytes]:
    # Not by asyncio: uvloop forks, which copies the page tables of a process that holds models, for .1 s on the loop.
    return subprocess.Popen(  # noqa: S603  our own module
        (sys.executable, "-W", "ignore", "-m", __name__, str(memory_bytes), str(_NICENESS * background)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | (_ONE_THREAD if background else {}),
        # An interrupt from the keyboard is for this process, which then ends the child. In a session of its own Linux
        # would give the child as much of the cores as this process has, whatever its priority (autogroup).
        process_group=0,
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
    os.nice(int(sys.argv[2]))
    if memory_bytes := int(sys.argv[1]):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
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
