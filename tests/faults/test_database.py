"""The whole service while its database hangs or its disk fills up: what it answers meanwhile, and that it heals.

All tests share one machine, whose disk is small where the tests may mount one.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.store import disk_space
from tests.faults.machine import COLLECTION, Machine, Writer, assert_everything_is_there_once, marker, running, settle

pytestmark = [pytest.mark.faults, pytest.mark.database, pytest.mark.slow, pytest.mark.xdist_group("database")]

DOOMED = "/v1/collections/doomed"
HANG_SECONDS = 6.0
WRITE = {"documents": [{"id": "late", "title": "late", "text": "too late"}]}
REQUESTS: list[tuple[str, str, object]] = [
    ("POST", f"{COLLECTION}/search", {"query": "text"}),
    ("POST", f"{COLLECTION}/search", {"query": "text", "budget_ms": 200}),
    ("POST", f"{COLLECTION}/documents", WRITE),
    ("GET", f"{COLLECTION}/documents/doc-1", None),
    ("GET", "/readyz", None),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    disk = tmp_path_factory.mktemp("disk")
    disk.chmod(0o755)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", disk], capture_output=True)
    try:
        (disk / "data").mkdir()
        with running(disk / "data", {}) as machine:
            yield machine
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def state() -> dict[str, str | None]:
    """What was acknowledged last of each document on the machine."""
    return {}


def fill(disk: Path, leave: int) -> Path:
    """What other programs write."""
    path = disk / "filler"
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while (room := disk_space.free_bytes(disk) - leave) > 0:
            file.write(bytes(min(room, 2**20)))
    return path


def write(machine: Machine, name: str, text: str) -> httpx.Response:
    return machine.http.post(f"{COLLECTION}/documents", json={"documents": [{"id": name, "title": name, "text": text}]})


def refused(answer: httpx.Response) -> bool:
    if answer.status_code == 200:
        return False
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30"), answer.text
    return "its disk is nearly full" in answer.json()["detail"]


def searched(machine: Machine, query: str = "first") -> bool:
    with suppress(httpx.TransportError):
        answer = machine.http.post(f"{COLLECTION}/search", json={"query": query, "mode": "lexical"})
        return answer.status_code == 200 and bool(answer.json()["hits"])
    return False


def reported_free(machine: Machine) -> float:
    lines = machine.http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("azimuth_disk_free_bytes ")).split()[1])


def replaced(machine: Machine, killed: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError, IndexError, ValueError):  # it is just being restarted
        return machine.processes_of("postgres") != [killed]
    return False


@contextmanager
def hanging(machine: Machine) -> Iterator[None]:
    (leader,) = machine.processes_of("postgres")
    stopped = [leader, *leader.children(recursive=True)]
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):  # what was resumed before it may have ended it
                process.resume()


def test_a_hanging_database_is_a_quick_503_and_loses_nothing(machine: Machine, state: dict[str, str | None]) -> None:
    writer = Writer(machine, seed=1, documents=30)
    writer.state = state
    writer.write_all()
    settle(machine)
    slowest, asked = 0.0, set()
    with hanging(machine):
        # Jobs, leases, the change feed and heartbeats wait for the database meanwhile.
        ended = time.monotonic() + HANG_SECONDS
        while time.monotonic() < ended:
            for method, path, body in REQUESTS:
                started = time.monotonic()
                answer: httpx.Response = machine.http.request(method, path, json=body)
                slowest = max(slowest, time.monotonic() - started)
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
                asked.add(path)
            assert machine.http.get("/livez").status_code == 200
    assert len(asked) == 4
    assert slowest < HANG_SECONDS, "it waited until the database came back"
    writer.write_all()
    settle(machine)
    late = machine.http.get(f"{COLLECTION}/documents/late")
    if late.status_code == 200:  # its commit was under way, and was not acknowledged
        machine.send("DELETE", f"{COLLECTION}/documents/late")
    assert_everything_is_there_once(machine, state)


def test_writes_are_refused_in_time_and_reading_goes_on(machine: Machine, state: dict[str, str | None]) -> None:
    small_disk = machine.folder.parent
    if not small_disk.is_mount():
        pytest.skip("only root can mount a small disk")
    state["first"] = "markerfirst at first"
    assert machine.send("PUT", DOOMED, json={}).status_code == 201
    machine.send("POST", f"{DOOMED}/documents", json={"documents": [{"id": "a", "text": "a"}]})
    assert write(machine, "first", str(state["first"])).status_code == 200
    settle(machine)
    machine.until(lambda: searched(machine), "found")

    filler = fill(small_disk, disk_space.reserve_bytes(small_disk) + 2**20)
    for number in range(1000):
        name, text = f"d{number}", f"{marker(number, f'd{number}')} {random.randbytes(30_000).hex(' ', 4)}"
        answer = write(machine, name, text)
        if refused(answer):
            break
        state[name] = text
    assert 0 < number < 1000
    assert machine.select("SELECT count(*) FROM documents WHERE document_id = %s", name) == [(0,)]

    fill(small_disk, 0)
    assert searched(machine)
    (killed,) = machine.processes_of("postgres")
    killed.kill()
    machine.until(lambda: replaced(machine, killed) and searched(machine), "searched again")
    assert refused(write(machine, "late", "too late"))
    machine.until(machine.ready, "ready")
    machine.until(lambda: reported_free(machine) < disk_space.reserve_bytes(small_disk), "the gauge shows it")
    # What frees space is possible.
    assert machine.send("DELETE", DOOMED, params={"confirm": "doomed"}).status_code == 204

    filler.unlink()
    machine.until(lambda: write(machine, "again", "markeragain here").status_code == 200, "written again")
    state["again"] = "markeragain here"
    settle(machine)
    machine.until((small_disk / "data" / "postgres.ballast").exists, "there is a reserve again")
    assert_everything_is_there_once(machine, state)
