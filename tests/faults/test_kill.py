"""Kill processes at random moments: what was acknowledged must be stored exactly once, everywhere.

The whole service runs as an operator runs it, with the fast hashing encoder.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.machine import Machine, Writer, assert_everything_is_there_once, running, settle

pytestmark = pytest.mark.faults

DOCUMENTS = 150


@pytest.fixture
def machine(folder: Path) -> Iterator[Machine]:
    with running(folder, {}) as machine:
        yield machine
    assert not (folder / "postgres" / "postmaster.pid").exists(), "the embedded server outlived its users"


@pytest.mark.parametrize(("victim", "seed"), [("worker", 1), ("serve", 2), ("postgres", 3)])
def test_no_acknowledged_write_is_lost_or_duplicated(machine: Machine, victim: str, seed: int) -> None:
    chance = random.Random(seed)
    writer = Writer(machine, seed, DOCUMENTS)
    writer.start()
    for _ in range(5):
        time.sleep(chance.uniform(0.1, 1.5))
        machine.until(lambda: machine.kill(victim), f"{victim} was back to be killed again", 60)
    writer.finish()
    settle(machine)
    assert_everything_is_there_once(machine, writer.state)
    if victim != "worker":
        return
    # Then the supervisor itself, and with it all processes.
    assert machine.process is not None
    orphans = psutil.Process(machine.process.pid).children()
    machine.process.kill()
    machine.process.wait()
    psutil.wait_procs(orphans, timeout=40)
    assert not [orphan for orphan in orphans if orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE]
    machine.start()
    settle(machine)
    assert_everything_is_there_once(machine, writer.state)
