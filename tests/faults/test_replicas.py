"""Searches read a streaming replica for as long as it is near enough, and PgBouncer may stand before the server."""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from service.store.embedded.server import EmbeddedServer
from tests.faults.machine import COLLECTION, Machine, running, settle
from tests.faults.test_restore import Asking, replica_of, shown, write
from tests.programs import unused_port
from tests.running import process, wait_for

pytestmark = pytest.mark.faults
LAG_HEADER = "x-azimuth-replica-lag"


def replica_lag(machine: Machine, **request: object) -> float | None:
    """What a search says of the replica that it read."""
    answer = machine.send("POST", f"{COLLECTION}/search", json={"query": "heron", **request})
    return float(answer.headers[LAG_HEADER]) if LAG_HEADER in answer.headers else None


def test_searches_read_a_replica_while_it_is_near_enough(scratch: Path) -> None:
    with EmbeddedServer(scratch / "primary") as primary:
        settings = {"DATABASE_URL": primary.url, "REPLICA_LAG_SECONDS": "1"}
        with replica_of(primary, scratch / "replica") as replica:
            with running(scratch / "replicated", {}, DATABASE_READ_URLS=replica, **settings) as machine:
                write(machine, "a", "b")
                machine.until(lambda: replica_lag(machine) is not None, "a replica answers", 20)
                asking = Asking(machine)
                asking.start()
                with psycopg.connect(replica, autocommit=True) as connection:
                    connection.execute("SELECT pg_wal_replay_pause()")
                    write(machine, "c")
                    machine.until(lambda: replica_lag(machine) is None, "it is too far behind", 20)
                    assert shown(machine, "dense") == {"a", "b", "c"}
                    connection.execute("SELECT pg_wal_replay_resume()")
                machine.until(lambda: replica_lag(machine) is not None, "it is near again", 20)
                for number in range(5):  # a token is honoured at once, whichever server answers
                    documents = [{"id": f"d{number}", "text": f"heron of d{number}"}]
                    written = machine.send("POST", f"{COLLECTION}/documents?wait=true", json={"documents": documents})
                    body = {"query": "heron", "k": 50, "min_revision": written.headers["x-azimuth-revision"]}
                    found = machine.send("POST", f"{COLLECTION}/search", json=body).json()
                    assert f"d{number}" in {hit["id"] for hit in found["hits"]}, found
                with psycopg.connect(replica, autocommit=True) as connection:
                    connection.execute("SELECT pg_promote()")  # now it follows nobody
                machine.until(lambda: replica_lag(machine) is None, "a server that follows nobody is left out", 20)
                asking.finish()
                metrics = machine.http.get("/metrics").text
                assert 'azimuth_replica_searches_total{replica="0"}' in metrics
                assert "azimuth_database_restored_total 0.0" in metrics


@contextmanager
def pgbouncer(server: EmbeddedServer, folder: Path) -> Iterator[str]:
    """The URL of a pooler in transaction mode before the server."""
    port, socket = unused_port(), parse_qs(urlsplit(server.url).query)["host"][0]
    folder.mkdir()
    file = folder / "pgbouncer.ini"
    file.write_text(
        f"[databases]\npostgres = host={socket} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 10\n"
    )
    folder.chmod(0o755)
    account = ["-u", pwd.getpwuid(server.folder.stat().st_uid).pw_name] if os.getuid() == 0 else []  # it refuses root
    with process(["pgbouncer", *account, str(file)], folder / "log"):
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"

        def answers() -> bool:
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    return bool(connection.execute("SELECT 1").fetchone())
            except psycopg.OperationalError:
                return False

        wait_for(answers, (folder / "log").read_text)
        yield url


@pytest.mark.skipif(shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="no pgbouncer")
def test_a_pooler_in_transaction_mode_stands_before_the_server(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    settings = {"EXACT_BELOW": "10"}
    with EmbeddedServer(scratch / "pooled") as server, pgbouncer(server, scratch / "pooler") as url:
        with running(scratch / "behind", {}, DATABASE_URL=url, **settings) as machine:
            names = [f"n{number}" for number in range(12)]
            write(machine, *names)
            second = {"embedder": {"model": "hashing:64", "query_prompt": "q: "}, "chunking": {"max_tokens": 64}}
            made = machine.send("POST", f"{COLLECTION}/versions", json=second)
            assert made.status_code == 202, made.text
            machine.until(
                lambda: machine.send("GET", f"{COLLECTION}/versions/2").json()["state"] == "ready",
                lambda: machine.send("GET", f"{COLLECTION}/versions/2").text,
                60,
            )
            write(machine, "later")
            assert shown(machine, "dense") == {*names, "later"}
            settle(machine)
        with psycopg.connect(server.url, autocommit=True) as connection:
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            # Locks of transactions end with them, locks of sessions would stay in the pooler.
            wait_for(lambda: connection.execute(held).fetchone() == (0,), "no lock is left")
