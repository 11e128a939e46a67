"""The embedded server, killed and confused in every way; each test on a data folder of its own."""

import importlib.util
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import psutil
import psycopg
import pytest
from psycopg.rows import TupleRow

from service.core.errors import DatabaseUnavailable, Misconfigured
from service.store.embedded import account
from service.store.embedded import server as embedded
from service.store.embedded.server import EmbeddedServer
from tests.running import wait_for

pytestmark = [pytest.mark.database, pytest.mark.faults]

SMALL = {"shared_buffers": "16MB"}
NOBODY = 65534
until = partial(wait_for, what="it happens", seconds=20)
Make = Callable[[], EmbeddedServer]


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """A data folder of one's own (with `scratch`, what still runs in it at the end is killed)."""
    with tempfile.TemporaryDirectory(dir=scratch) as path:
        yield Path(path) / "postgres"


@pytest.fixture
def made(folder: Path) -> Iterator[Make]:
    """Makes servers on the folder; they are stopped in the end."""
    servers: list[EmbeddedServer] = []

    def make() -> EmbeddedServer:
        servers.append(EmbeddedServer(folder, settings=SMALL))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def execute(url: str, statement: str) -> list[TupleRow]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))


def kill(process: psutil.Process) -> None:
    """kill -9, and wait until it is really dead. It may stay as a zombie where no one asks for its fate."""
    process.kill()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def running_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process)
    return found


HOLDER = """
import sys
from pathlib import Path
from service.store.embedded.server import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), settings={"shared_buffers": "16MB"}) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def starting(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process of ours that uses the server until its standard input ends."""
    process = starting(folder)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("postgresql://")
    return process


def test_it_starts_stops_and_keeps_its_data(made: Make, folder: Path) -> None:
    server = made()
    assert not server.alive()
    url = server.start()
    assert server.alive()
    execute(url, "CREATE TABLE kept AS SELECT 1 AS a")
    assert server.start() == url
    server.stop()
    assert not server.alive()
    assert running_in(folder) == []
    server.stop()
    assert execute(made().start(), "SELECT a FROM kept") == [(1,)]


def test_it_is_durable_and_quiet_about_contents(made: Make, folder: Path) -> None:
    url = made().start()
    settings: dict[str, str] = dict(execute(url, "SELECT name, setting FROM pg_settings"))
    assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on", "on", "on")
    assert settings["listen_addresses"] == ""
    assert settings["shared_buffers"] == "2048"  # pages of 8 kB: what was asked for goes before what is computed
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(url, "CREATE TABLE t (a text UNIQUE); INSERT INTO t VALUES ('confidential'), ('confidential')")
    assert "confidential" not in (folder / "server.log").read_text()


def test_text_sorts_and_folds_the_same_on_every_system(made: Make) -> None:
    url = made().start()
    locale = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'postgres'"
    assert execute(url, locale) == [("b", "C.UTF-8")]
    assert execute(url, "SELECT lower('ÄÉ')") == [("äé",)]


def test_two_projects_live_side_by_side(made: Make, folder: Path) -> None:
    first = made().start()
    with EmbeddedServer(folder.with_name("other"), settings=SMALL) as other:
        execute(first, "CREATE TABLE a ()")
        assert execute(other.url, "SELECT to_regclass('a')") == [(None,)]
    assert execute(first, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("name", ["d" * 150, 'it\'s, "odd" $(here) ;'])
def test_deep_and_odd_folders_work(folder: Path, name: str) -> None:
    deep = folder.with_name(name) / "postgres"
    with EmbeddedServer(deep, settings=SMALL) as server:
        assert execute(server.url, "SHOW data_directory") == [(str(deep),)]
        again = EmbeddedServer(deep, settings=SMALL)
        assert again.start() == server.url
        again.stop()
        sockets = Path(unquote(server.url.partition("host=")[2]))
        assert sockets.exists()
    assert sockets == deep or not sockets.exists()


def test_processes_share_one_server_and_the_last_one_stops_it(made: Make, folder: Path) -> None:
    server = made()
    url = server.start()
    with holder(folder) as other:
        server.stop()
        assert server.alive()
        assert execute(url, "SELECT 1") == [(1,)]
        other.communicate("")
    assert running_in(folder) == []


def test_a_killed_process_does_not_count_as_a_user(made: Make, folder: Path) -> None:
    with holder(folder) as other:
        before = postmaster(folder).pid
        other.kill()
        other.communicate()
    server = made()
    assert server.alive()
    server.start()
    assert postmaster(folder).pid == before
    server.stop()
    assert running_in(folder) == []


def test_many_that_start_at_once_get_one_server(folder: Path) -> None:
    processes = [starting(folder) for _ in range(4)]
    urls = {process.stdout.readline() for process in processes if process.stdout is not None}
    try:
        assert len(urls) == 1
        assert urls.pop().startswith("postgresql://")
        assert len([one for one in running_in(folder) if "postgres" in one.exe()]) > 1
    finally:
        for process in processes:
            process.communicate("")
    assert running_in(folder) == []


def test_after_the_server_was_killed_it_starts_with_all_that_was_committed(made: Make, folder: Path) -> None:
    server = made()
    url = server.start()
    execute(url, "CREATE TABLE kept (a integer)")
    with closing(psycopg.connect(url)) as unfinished:
        unfinished.execute("INSERT INTO kept VALUES (2)")
        execute(url, "INSERT INTO kept VALUES (1)")
        kill(postmaster(folder))
    assert not server.alive()
    assert server.start() == url
    assert server.alive()
    assert execute(url, "SELECT a FROM kept") == [(1,)]


def test_after_server_and_process_were_killed_it_starts(made: Make, folder: Path) -> None:
    with holder(folder) as other:
        kill(postmaster(folder))
        other.kill()
        other.communicate()
    server = made()
    assert execute(server.start(), "SELECT 1") == [(1,)]
    server.stop()
    assert running_in(folder) == []


def test_a_pid_file_that_names_someone_else_by_now_is_stale(made: Make, folder: Path) -> None:
    server = made()
    server.start()
    kill(postmaster(folder))
    until(lambda: running_in(folder) == [])
    file = folder / "postmaster.pid"
    lines = file.read_text().splitlines()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:  # it ends with its standard input
        file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert not server.alive()
        assert execute(server.start(), "SELECT 1") == [(1,)]
        server.stop()
        assert stranger.poll() is None, "it stopped a process that is not its own"


def test_another_server_s_pid_is_not_taken_for_ours(made: Make, folder: Path) -> None:
    server = made()
    server.start()
    kill(postmaster(folder))
    until(lambda: running_in(folder) == [])
    with EmbeddedServer(folder.with_name("other"), settings=SMALL) as other:
        theirs = (folder.with_name("other") / "postmaster.pid").read_text().splitlines()
        ours = (folder / "postmaster.pid").read_text().splitlines()
        (folder / "postmaster.pid").write_text("\n".join([theirs[0], *ours[1:]]) + "\n")
        assert not server.alive()
        assert execute(server.start(), "SELECT 1") == [(1,)]
        server.stop()
        assert execute(other.url, "SELECT 1") == [(1,)]


def test_backends_that_go_on_computing_are_ended_before_a_new_start(
    made: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_ORPHAN_SECONDS", 1.0)
    server = made()
    url = server.start()
    computing = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 1000000) b"
    with closing(psycopg.connect(url)) as connection:
        connection.pgconn.send_query(computing.encode())
        active = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%gen%b'"
        until(lambda: execute(url, active))
        kill(postmaster(folder))
        time.sleep(0.2)  # the others leave; the one that computes does not notice
        assert running_in(folder) != []
        assert execute(server.start(), "SELECT 1") == [(1,)]


def test_a_server_that_is_just_stopping_is_waited_for(made: Make, folder: Path) -> None:
    server = made()
    url = server.start()
    before = postmaster(folder)
    with ThreadPoolExecutor() as threads:
        with closing(psycopg.connect(url)):
            before.terminate()  # "smart": it stops once its clients are gone
            until(lambda: not server.alive())
            started = threads.submit(made().start)
            with pytest.raises(TimeoutError):
                started.result(timeout=0.3)
            assert before.is_running()
        assert started.result(timeout=30) == url
    assert postmaster(folder).pid != before.pid
    assert execute(url, "SELECT 1") == [(1,)]


def test_a_kill_in_the_middle_of_the_first_start_leaves_nothing_in_the_way(made: Make, folder: Path) -> None:
    half_made = folder.with_name("postgres.new")
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    assert execute(made().start(), "SELECT 1") == [(1,)]
    assert not half_made.exists()


def test_a_folder_of_another_major_version_is_refused(made: Make, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text("15\n")
    with pytest.raises(Misconfigured, match="made by PostgreSQL 15"):
        made().start()


def test_a_folder_with_something_else_is_refused_and_left_alone(made: Make, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(Misconfigured, match="not a PostgreSQL data folder"):
        made().start()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_without_the_wheel_it_says_what_to_do(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Misconfigured, match=r"azimuth-search\[embedded\].*AZIMUTH_DATABASE_URL"):
        made().start()


def test_a_server_that_cannot_start_says_why_and_is_no_longer_used(folder: Path, made: Make) -> None:
    broken = EmbeddedServer(folder, settings={**SMALL, "max_connections": "many"})
    with pytest.raises(DatabaseUnavailable, match='invalid value for parameter "max_connections"'):
        broken.start()
    assert execute(made().start(), "SELECT 1") == [(1,)]


AS_NOBODY = """
import os, sys
from pathlib import Path
import psutil, psycopg
from service.core.errors import Misconfigured
from service.store.embedded.server import EmbeddedServer
os.setgroups([]); os.setgid({0}); os.setuid({0})
folder = Path(sys.argv[1])
for _ in range(2):
    with EmbeddedServer(folder / "postgres", settings={{"shared_buffers": "16MB"}}) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t ()")
try:
    EmbeddedServer(Path(sys.argv[2])).start()
except Misconfigured as error:
    print(error)
"""

root_only = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be two users; the other tests ran as an ordinary one"
)


@root_only
def test_an_ordinary_user_runs_it_and_is_kept_out_of_another_user_s_folder(made: Make, folder: Path) -> None:
    made().start()
    theirs = folder.with_name("theirs")
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    script = AS_NOBODY.format(NOBODY)
    command = [sys.executable, "-c", script, str(theirs), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "belongs to another user" in done.stdout or "cannot be written" in done.stdout
    assert (theirs / "postgres" / "PG_VERSION").stat().st_uid == NOBODY
    # Root takes it over as the user that it belongs to.
    with EmbeddedServer(theirs / "postgres", settings=SMALL) as server:
        assert execute(server.url, "SELECT count(*) FROM t") == [(0,)]
        assert postmaster(theirs / "postgres").uids().real == NOBODY


@root_only
def test_root_s_server_runs_as_its_own_user_and_can_reach_its_folder(made: Make, folder: Path) -> None:
    folder.parent.chmod(0o700)
    made().start()
    assert postmaster(folder).uids().real == pwd.getpwnam(account.SYSTEM_USER).pw_uid
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o701


def test_what_belongs_to_other_servers_in_the_environment_is_ignored(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGHOST": "nowhere", "PGOPTIONS": "-c x"}.items():
        monkeypatch.setenv(name, value)
    server = made()
    server.start()
    assert server.alive()


def test_a_terminated_owner_can_stop_in_order(folder: Path) -> None:
    """SIGINT in the middle of use: the context manager leaves, and the server with it."""
    with holder(folder) as other:
        other.send_signal(signal.SIGINT)
        other.communicate()
    assert running_in(folder) == []
