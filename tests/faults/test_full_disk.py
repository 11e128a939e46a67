"""A disk that fills up: writes are refused in time, reading goes on whatever happens, and it heals by itself."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.store import disk_space
from tests.faults.machine import COLLECTION, Machine, assert_everything_is_there_once, marker, running, settle

pytestmark = [pytest.mark.faults, pytest.mark.database, pytest.mark.slow]

DOOMED = "/v1/collections/doomed"


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    folder.chmod(0o755)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


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


def replaced(machine: Machine, killed: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError, IndexError, ValueError):  # it is just being restarted
        return machine.processes_of("postgres") != [killed]
    return False


def test_writes_are_refused_in_time_and_reading_goes_on(small_disk: Path) -> None:
    (small_disk / "data").mkdir()
    with running(small_disk / "data", {}) as machine:
        state: dict[str, str | None] = {"first": "markerfirst at first"}
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
        assert machine.http.get("/readyz").status_code == 200
        free = next(
            line
            for line in machine.http.get("/metrics").text.splitlines()
            if line.startswith("azimuth_disk_free_bytes ")
        )
        assert float(free.split()[1]) < disk_space.reserve_bytes(small_disk)
        # What frees space is possible.
        assert machine.send("DELETE", DOOMED, params={"confirm": "doomed"}).status_code == 204

        filler.unlink()
        machine.until(lambda: write(machine, "again", "markeragain here").status_code == 200, "written again")
        state["again"] = "markeragain here"
        settle(machine)
        assert (small_disk / "data" / "postgres.ballast").exists()
        assert_everything_is_there_once(machine, state)
