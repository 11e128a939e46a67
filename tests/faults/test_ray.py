"""Workers on Ray: they encode all that waits, whatever is killed meanwhile."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.machine import Machine, Writer, assert_everything_is_there_once, running

pytestmark = pytest.mark.faults
pytest.importorskip("ray", reason="Ray has no package for this Python")


@pytest.fixture
def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(Machine, "workers", 0)
    with running(folder, {}) as machine:
        yield machine


def driver(machine: Machine) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "service", "backfill", "--ray", "local", "--workers", "2"]
    return subprocess.Popen(command, env=machine.environment)


def actors(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            if "RayWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def waiting(machine: Machine) -> int:
    ((count,),) = machine.select("SELECT count(*) FROM jobs")
    return int(count)


def test_an_actor_and_the_driver_may_be_killed(machine: Machine) -> None:
    writer = Writer(machine, 5, 1000)
    writer.write_all()
    first = driver(machine)
    try:
        Machine.until(lambda: len(actors(first)) == 2 and waiting(machine) < 1000, "two actors that work")
        actors(first)[0].kill()
        left = waiting(machine)
        Machine.until(lambda: waiting(machine) < left or first.poll() == 0, "the work goes on, or all is done")
    finally:
        first.kill()
        first.wait()
    writer.write_all()
    second = driver(machine)
    assert second.wait(120) == 0
    assert_everything_is_there_once(machine, writer.state)
