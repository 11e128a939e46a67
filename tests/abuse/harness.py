"""A well-behaved client searches while somebody attacks the service: what the client sees, quiet and attacked.

Times are compared with those of the same service a moment before, never with a constant of some machine.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.abuse.calm_client import SEARCHES
from tests.faults.machine import Machine

QUIET_SECONDS = 3.0
ATTACK_SECONDS = 4.0
SLOWER = 3.0
"""How much slower the 95th percentile of searches may get."""
LIVEZ_SECONDS = 0.1
TRIES = 3
"""A machine that is busy with something else may spoil a measurement; harm that an attack does shows each time."""

MAX_CONNECTIONS = 400
"""Of the service: fewer than the default, so that a test can have more."""

Attack = Callable[[Machine], object]


@dataclass
class Experience:
    """What the client saw: seconds of each search and of each `/livez`, and the answers other than 200."""

    searches: list[float] = field(default_factory=list)
    livez: list[float] = field(default_factory=list)
    refused: list[int | str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{len(self.searches)} searches, {len(self.livez)} /livez, refused {self.refused[:5]}"
        return f"p95 {p95(self.searches):.3f} s, /livez p95 {p95(self.livez):.3f} s ({counts})"


def p95(seconds: list[float]) -> float:
    """The 95th percentile of at least two values."""
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


@contextmanager
def searching(machine: Machine) -> Iterator[Experience]:
    """One client searches, and asks `/livez`, for as long as the block lasts. Filled when it ends."""
    experience = Experience()
    command = [sys.executable, "-m", "tests.abuse.calm_client", f"http://127.0.0.1:{machine.port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        try:
            yield experience
        finally:
            vars(experience).update(json.loads(client.communicate()[0]))


@contextmanager
def calm_service(folder: Path, **settings: str) -> Iterator[Machine]:
    """`azimuth up` with the model that ships, and a small collection that is searched.

    `settings`: environment variables without their `AZIMUTH_`.
    """
    models = {"EMBEDDER": "all-MiniLM-L6-v2", "RERANKER": "azimuth-minilm-l6"}
    machine = Machine(folder, **{**models, "MAX_CONNECTIONS": str(MAX_CONNECTIONS), **settings})
    machine.start()
    try:
        assert machine.send("PUT", SEARCHES.removesuffix("/search"), json={}).is_success
        documents = [{"id": f"d{n}", "text": f"Planet {n} has the colour {n * 7919 % 360}."} for n in range(100)]
        path = SEARCHES.replace("search", "documents?wait=true")
        assert machine.send("POST", path, json={"documents": documents}).is_success
        rerank = {"query": "which colour?", "texts": ["blue"]}  # loads what is loaded on demand
        assert machine.send("POST", "/rerank", json=rerank).is_success
        with searching(machine):
            time.sleep(1)
        yield machine
    finally:
        machine.stop()


def assert_unharmed(machine: Machine, attack: Attack) -> None:
    """The attack, repeated for some seconds, neither slows nor fails the client's searches, and health is answered."""
    told = []
    for _ in range(TRIES):
        with searching(machine) as quiet:
            time.sleep(QUIET_SECONDS)
        with searching(machine) as attacked:
            end = time.monotonic() + ATTACK_SECONDS
            while time.monotonic() < end:
                attack(machine)
        assert not quiet.refused, quiet
        slower = p95(attacked.searches) / p95(quiet.searches)
        told.append(f"quiet: {quiet}; attacked: {attacked}")
        if slower < SLOWER and p95(attacked.livez) < LIVEZ_SECONDS and not attacked.refused:
            return
    raise AssertionError("\n".join(told))
