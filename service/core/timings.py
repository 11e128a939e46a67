"""The time of a request by stage, rendered as histograms, log fields, `Server-Timing`, JSON and traces."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Seconds by stage, in the order in which the stages first ended. A repeated stage adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.runs: list[tuple[str, float, float]] = []
        """Each run of a stage with its start and end on the clock of `time.perf_counter`."""
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.runs.append((name, started, ended))
            self.seconds[name] = self.seconds.get(name, 0.0) + ended - started

    @property
    def elapsed(self) -> float:
        """Seconds since this object was created."""
        return time.perf_counter() - self._started

    def milliseconds(self) -> dict[str, float]:
        return {name: round(seconds * 1000, 3) for name, seconds in self.seconds.items()}

    def header(self) -> str:
        """The value of a `Server-Timing` header (W3C), durations in milliseconds."""
        return ", ".join(f"{name};dur={ms:g}" for name, ms in self.milliseconds().items())
