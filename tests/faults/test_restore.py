"""Another state of the database comes back while the service runs: an older dump, an older folder, a replica.

Afterwards searches show what the database holds: nothing that came later, and all that was there.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import psycopg
import pytest

from service.store.embedded.server import EmbeddedServer, programs
from tests.faults.machine import COLLECTION, Client, Machine, Writer, running, settle
from tests.s3 import BUCKET, store

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("restore")]  # one machine


@pytest.fixture(scope="module")
def machine(scratch: Path) -> Iterator[Machine]:
    with running(scratch / "restore", {}) as machine:
        yield machine


class Asking(Client):
    """Searches without pause: each answer is honest about what it cannot see."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._http = machine.client()

    def finish(self) -> None:
        super().finish()
        self._http.close()

    def step(self) -> None:
        answer = self._http.post(f"{COLLECTION}/search", json={"query": "heron", "mode": "lexical"})
        assert answer.status_code in {200, 404} or (answer.status_code == 503 and "retry-after" in answer.headers)
        assert answer.elapsed.total_seconds() < 5


def write(machine: Machine, *names: str) -> None:
    documents = [{"id": name, "text": f"heron of {name}"} for name in names]
    assert machine.send("POST", f"{COLLECTION}/documents?wait=true", json={"documents": documents}).is_success
    settle(machine)


def shown(machine: Machine, mode: str) -> set[str]:
    query = {"query": "heron", "mode": mode, "k": 50}
    answer = machine.send("POST", f"{COLLECTION}/search", json=query)
    return {hit["id"] for hit in answer.json()["hits"]} if answer.is_success else set()


def assert_shows(machine: Machine, *names: str) -> None:
    for mode in ("lexical", "dense"):
        machine.until(lambda mode=mode: shown(machine, mode) == set(names), f"{mode} shows {names}", 30)  # type: ignore[misc]
    write(machine, "later")
    machine.until(lambda: shown(machine, "hybrid") == {*names, "later"}, "what is written afterwards is found", 30)


def test_an_older_dump_comes_back_while_the_service_runs(machine: Machine) -> None:
    url = EmbeddedServer(machine.folder / "postgres").url
    write(machine, "a", "b")
    dump = [str(programs() / "pg_dump"), "--clean", "--if-exists", url]
    script = subprocess.run(dump, check=True, capture_output=True).stdout
    write(machine, "c")
    asking = Asking(machine)
    asking.start()
    restore = [str(programs() / "psql"), "--quiet", "--single-transaction", url]
    subprocess.run(restore, input=script, check=True, stdout=subprocess.DEVNULL)
    assert_shows(machine, "a", "b")
    asking.finish()
    machine.until(lambda: restored(machine), "the restore is reported")


def test_the_database_is_dropped_and_filled_again_while_the_service_runs(machine: Machine) -> None:
    url = EmbeddedServer(machine.folder / "postgres").url
    write(machine, "p")
    before = shown(machine, "lexical")
    script = subprocess.run([str(programs() / "pg_dump"), url], check=True, capture_output=True).stdout
    asking = Asking(machine)
    asking.start()
    with psycopg.connect(url, autocommit=True, dbname="template1") as connection:
        connection.execute("DROP DATABASE postgres WITH (FORCE)")
        time.sleep(3)  # until calls fail at once
        connection.execute("CREATE DATABASE postgres TEMPLATE template0")
    subprocess.run([str(programs() / "psql"), "--quiet", url], input=script, check=True, stdout=subprocess.DEVNULL)
    assert_shows(machine, *before)
    asking.finish()


def test_an_older_folder_of_the_database_comes_back(machine: Machine) -> None:
    folder, copy = machine.folder / "postgres", machine.folder / "copy"
    write(machine, "x")
    before = shown(machine, "lexical")
    with stopped(machine):
        subprocess.run(["cp", "--archive", folder, copy], check=True)  # with its owner
    write(machine, "y")
    with stopped(machine):
        shutil.rmtree(folder)
        subprocess.run(["cp", "--archive", copy, folder], check=True)
    assert_shows(machine, *before)
    rebuilt = 'azimuth_lexical_rebuilds_total{reason="restored"} 1.0'
    machine.until(lambda: rebuilt in machine.http.get("/metrics").text, "the index was built anew, and once")


def test_a_replica_takes_over(scratch: Path) -> None:
    with EmbeddedServer(scratch / "first") as first, replica_of(first, scratch / "second") as second:
        sockets = ",".join(quote(parse_qs(urlsplit(url).query)["host"][0], safe="") for url in (first.url, second))
        url = f"postgresql://postgres@/postgres?host={sockets}&target_session_attrs=read-write"
        with running(scratch / "data", {}, DATABASE_URL=url) as machine:
            write(machine, "a", "b")
            asking = Asking(machine)
            asking.start()
            machine.until(lambda: replicated(first), "replicated")
            os.kill(int((first.folder / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            time.sleep(3)  # until calls fail at once
            with psycopg.connect(second, autocommit=True) as connection:
                connection.execute("SELECT pg_promote()")
            assert_shows(machine, "a", "b")
            asking.finish()
            machine.until(lambda: restored(machine), "the change of servers is reported")


def restored(machine: Machine) -> bool:
    """Told once a second: a search may show the new state before."""
    return "azimuth_database_restored_total 0.0" not in machine.http.get("/metrics").text


def replicated(server: EmbeddedServer) -> bool:
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication").fetchall()
    return rows == [(True,)]


@contextmanager
def replica_of(server: EmbeddedServer, folder: Path) -> Iterator[str]:
    """The URL of a server that follows another one, and that is run by the same account."""
    owner = server.folder.stat()
    folder.mkdir(mode=0o700)
    os.chown(folder, owner.st_uid, owner.st_gid)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs() / program), f"--pgdata={folder}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=owner.st_uid, group=owner.st_gid)

    run("pg_basebackup", f"--dbname={server.url}", "--write-recovery-conf", "--checkpoint=fast")
    (folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # of the first one, whose socket lies in its folder
    run("pg_ctl", "start", "--wait", f"--log={folder}/server.log", f"--options=-k {folder}")
    try:
        yield f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"
    finally:
        run("pg_ctl", "stop", "--wait", "--mode=immediate")


@contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    machine.stop()
    yield
    machine.http = machine.client()
    machine.start()


def test_a_backup_is_restored_and_goes_on(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        back_up_and_restore(scratch, scratch / "backup", f"s3://{BUCKET}/backup")


def back_up_and_restore(scratch: Path, folder: Path, elsewhere: str) -> None:
    with running(scratch / "backed-up", {}) as machine:
        write(machine, "a", "b")
        writer = Writer(machine, 1, 20)  # the backup is taken while others write
        writer.start()
        azimuth(machine, "backup", str(folder))
        azimuth(machine, "backup", elsewhere)
        writer.finish()
    restored = Machine(scratch / "restored")
    for place, target in ((elsewhere, Machine(scratch / "fetched")), (str(folder), restored)):
        told = azimuth(target, "restore", place)  # and the database starts
        assert "1 of 1 lexical indexes" in told
        assert "needs hashing:64" in told
    restored.start()
    try:
        assert shown(restored, "lexical") == {"a", "b"}
        write(restored, "later")
        assert shown(restored, "lexical") == {"a", "b", "later"} <= shown(restored, "dense")
        assert "azimuth_lexical_rebuilds_total{" not in restored.http.get("/metrics").text
        assert "0 of 1 lexical" in azimuth(restored, "restore", "--lexical-only", str(folder))  # there is one already
    finally:
        restored.stop()


def azimuth(machine: Machine, *arguments: str) -> str:
    command = [sys.executable, "-m", "service", *arguments]
    done = subprocess.run(command, env=machine.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr
