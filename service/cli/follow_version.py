"""Show the progress of a new embedder version until it needs a decision: phase, rate and remaining time."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from azimuth_client import ApiError, Unreachable
from service.client.http_client import Client

PHASES = {"backfilling": "encoding documents", "indexing": "building the index", "verifying": "gathering evidence"}
"""The states that end by themselves. In every other state a version stays until an operator decides."""

UNITS = {"backfilling": "documents", "indexing": "chunks"}

POLL_SECONDS = (0.5, 5.0)
"""Bounds of the polling interval, which is a hundredth of the remaining time."""
LINE_SECONDS = 30.0
"""Without a terminal: interval between two lines of the same phase."""
PATIENCE_SECONDS = 300.0
"""How long to wait for a service that restarts."""
RENEWAL_SECONDS = 120.0
"""How long to wait for evidence that takes the newest judgments into account."""
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses that end by themselves."""


def follow(
    client: Client,
    collection: str,
    number: int,
    screen: Console,
    *,
    judged_at: datetime | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Show the version until its state no longer changes by itself, and return it. Survives restarts of the service.

    `judged_at`: wait until the service has renewed evidence that is older than these judgments.
    Raises Unreachable or ApiError if that lasts longer than `PATIENCE_SECONDS`.
    """
    lost: float | None = None
    renewed_by = clock() + RENEWAL_SECONDS
    with _display(screen, clock) as show:
        while True:
            try:
                version = client.version(collection, number)
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and error.status not in TRANSIENT_STATUSES:
                    raise
                if lost is None:
                    lost = clock()
                    screen.print(f"{error}; trying again", style="yellow", markup=False, highlight=False)
                elif clock() - lost > PATIENCE_SECONDS:
                    raise
                sleep(POLL_SECONDS[0])
                continue
            if lost is not None:
                screen.print("the service answers again", style="yellow")
                lost = None
            if judged_at is not None and _evidence_outdated(version, judged_at) and clock() < renewed_by:
                version["state"] = "verifying"
            show(version)
            if version["state"] not in PHASES:
                return version
            left = version["progress"]["eta_seconds"] or 0.0
            sleep(min(max(left / 100, POLL_SECONDS[0]), POLL_SECONDS[1]))


def _evidence_outdated(version: Mapping[str, Any], judged_at: datetime) -> bool:
    """Is the evidence older than the judgments? That of the previously active version is never renewed."""
    if version["state"] != "ready" or version["previous"]:
        return False
    return version["gathered_at"] is None or datetime.fromisoformat(version["gathered_at"]) < judged_at


@contextmanager
def _display(screen: Console, clock: Callable[[], float]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """The display of a version: bars on a terminal, lines elsewhere."""
    if not screen.is_terminal:
        yield _Lines(screen, clock)
        return
    description, told = TextColumn("{task.description}"), TextColumn("{task.fields[told]}")
    columns = (SpinnerColumn(), description, BarColumn(), told, TimeElapsedColumn())
    with Progress(*columns, console=screen) as progress:
        yield _Bars(progress)


@dataclass
class _Bars:
    """One bar for each phase; the bar of a finished phase stays, full."""

    progress: Progress
    tasks: dict[str, TaskID] = field(default_factory=dict)

    def __call__(self, version: dict[str, Any]) -> None:
        state, progress = version["state"], version["progress"]
        for phase, task in self.tasks.items():
            if phase != state:
                total = self.progress.tasks[task].total or 1
                self.progress.update(task, total=total, completed=total, told="")
        if state not in PHASES:
            return
        if state not in self.tasks:
            self.tasks[state] = self.progress.add_task(PHASES[state], total=None, told="")
        counted = state in UNITS and progress["total"] > 0
        self.progress.update(
            self.tasks[state],
            total=progress["total"] if counted else None,
            completed=progress["done"] if counted else 0,
            told=progress_text(version),
        )


@dataclass
class _Lines:
    """One line for each phase, repeated every `LINE_SECONDS`."""

    screen: Console
    clock: Callable[[], float]
    state: str = ""
    said: float = 0.0

    def __call__(self, version: dict[str, Any]) -> None:
        state = version["state"]
        if state not in PHASES or (state == self.state and self.clock() - self.said < LINE_SECONDS):
            return
        self.state, self.said = state, self.clock()
        line = ": ".join(filter(None, (PHASES[state], progress_text(version))))
        self.screen.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_text(version: Mapping[str, Any]) -> str:
    """Progress within the phase, such as `1,200 of 5,183 documents, 85/s, 47 s left`; empty in other states."""
    state, progress = version["state"], version["progress"]
    if state not in UNITS:
        return ""
    parts = [f"{progress['done']:,} of {progress['total']:,} {UNITS[state]}"]
    if progress["failed"]:
        parts.append(f"{progress['failed']:,} set aside")
    if version["paused"]:
        return ", ".join([*parts, "paused"])
    if progress["per_second"] is not None:
        rate = progress["per_second"]
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
    if progress["eta_seconds"] is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """In the two largest nonzero units: `47 s`, `3 min 20 s`, `2 h 5 min`, `6 d 3 h`."""
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount or parts:
            parts.append((amount, unit))
    return " ".join(f"{amount} {unit}" for amount, unit in parts[:2] if amount) or "0 s"
