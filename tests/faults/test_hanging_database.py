"""The whole service while its database hangs: every answer is a quick 503, and afterwards nothing is missing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.machine import COLLECTION, Machine, Writer, assert_everything_is_there_once, running, settle

pytestmark = [pytest.mark.faults, pytest.mark.database, pytest.mark.slow]

HANG_SECONDS = 6.0
WRITE = {"documents": [{"id": "late", "title": "late", "text": "too late"}]}
REQUESTS: list[tuple[str, str, object]] = [
    ("POST", f"{COLLECTION}/search", {"query": "text"}),
    ("POST", f"{COLLECTION}/search", {"query": "text", "budget_ms": 200}),
    ("POST", f"{COLLECTION}/documents", WRITE),
    ("GET", f"{COLLECTION}/documents/doc-1", None),
    ("GET", "/readyz", None),
]


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
            process.resume()


def test_a_hanging_database_is_a_quick_503_and_loses_nothing(scratch: Path) -> None:
    with running(scratch / "hanging", {}) as machine:
        writer = Writer(machine, seed=1, documents=30)
        writer.write_all()
        settle(machine)
        slowest, refused = 0.0, set()
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
                    refused.add(path)
                assert machine.http.get("/livez").status_code == 200
        assert len(refused) == 4
        assert slowest < HANG_SECONDS, "it waited until the database came back"
        writer.write_all()
        settle(machine)
        late = machine.http.get(f"{COLLECTION}/documents/late")
        if late.status_code == 200:  # its commit was under way, and was not acknowledged
            machine.send("DELETE", f"{COLLECTION}/documents/late")
        assert_everything_is_there_once(machine, writer.state)
