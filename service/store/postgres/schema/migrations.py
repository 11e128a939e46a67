"""Applies `migrations/NNNN_name.sql` to a database, in order and forward only.

Each file runs in one transaction, and its hash is stored with it. A file whose first lines say `-- transaction: false`
(for CREATE INDEX CONCURRENTLY) runs statement by statement, each ending with `;` at the end of a line. Interrupted, it
runs again from its start, so each of its statements must be repeatable: a concurrent index is dropped first (DROP INDEX
CONCURRENTLY IF EXISTS), for an interrupted build leaves an invalid one.

Any number of processes may start at once: one migrates, the others wait and find it done.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from time import monotonic
from typing import LiteralString

from psycopg.errors import InsufficientPrivilege, LockNotAvailable

from service.core.errors import MigrationMismatch, Misconfigured, MissingRights, TimedOut
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection, connect

_logger = logging.getLogger(__name__)

SQL = sql_files.load("migrations")

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_NO_TRANSACTION = re.compile(r"^-- transaction: false *$", re.MULTILINE)
_STATEMENT_END = re.compile(r";[ \t]*$", re.MULTILINE)
_HEAD_LINES = 5

_LOCK_KEY = 0x617A696D757468
"""Key of the advisory lock that migrating processes share: "azimuth" in ASCII."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    number: int
    name: str
    text: LiteralString
    sha256: str

    @property
    def label(self) -> str:
        return f"{self.number:04d}_{self.name}"

    @property
    def transactional(self) -> bool:
        return not _NO_TRANSACTION.search("\n".join(self.text.splitlines()[:_HEAD_LINES]))

    @property
    def statements(self) -> tuple[LiteralString, ...]:
        """The file as a whole, or its single statements where it runs outside a transaction."""
        if self.transactional:
            return (self.text,)
        parts = _STATEMENT_END.split(self.text)
        return tuple(part for part in parts if re.sub(r"--.*", "", part).strip())


def read(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """The migrations of this program, or of `folder`; Misconfigured where numbers are missing or repeated."""
    if folder is None:
        folder = files("service.store.postgres").joinpath("migrations")
    found: list[Migration] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if match := _FILE.fullmatch(file.name):
            text = file.read_text(encoding="utf-8").replace("\r\n", "\n")
            digest = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(number=int(match["number"]), name=match["name"], text=text, sha256=digest))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        labels = ", ".join(migration.label for migration in found)
        raise Misconfigured(f"Migrations must be numbered from 0001 without gaps: {labels}.")
    return tuple(found)


async def pending(url: str, migrations: Sequence[Migration] | None = None) -> tuple[Migration, ...]:
    """What `apply` would run, without running it. MigrationMismatch as in `apply`."""
    async with connect(url, application_name="azimuth migrate") as connection:
        return await _missing(connection, read() if migrations is None else migrations)


async def apply(
    url: str,
    migrations: Sequence[Migration] | None = None,
    *,
    lock_timeout_seconds: float = 5.0,
    patience_seconds: float = 600.0,
) -> tuple[Migration, ...]:
    """Run the missing migrations and return them.

    A statement waits at most `lock_timeout_seconds` for a lock, because all others queue behind it meanwhile; then the
    migration is tried again. TimedOut after `patience_seconds`; what was finished by then is committed.
    MigrationMismatch where a file that ran has changed since, or the database has more migrations than this program.
    """
    wanted = read() if migrations is None else migrations
    deadline = monotonic() + patience_seconds
    async with connect(url, application_name="azimuth migrate") as connection:
        await connection.execute(SQL.lock_timeout, {"milliseconds": str(round(lock_timeout_seconds * 1000))})
        if not await _missing(connection, wanted):
            return ()
        async with _migration_lock(url, deadline):
            try:
                await connection.execute(SQL.create_table)
                missing = await _missing(connection, wanted)
                for migration in missing:
                    _logger.info("migration %s", migration.label)
                    await _run(connection, migration, deadline)
            except InsufficientPrivilege as error:
                reason = str(error).splitlines()[0]
                raise MissingRights(f"The database role may not change the schema: {reason}.") from error
            return missing


async def _missing(connection: Connection, wanted: Sequence[Migration]) -> tuple[Migration, ...]:
    if await connection.fetch_one(SQL.exists) != (True,):
        return tuple(wanted)
    rows = await connection.fetch_all(SQL.applied)
    applied = {number: (name, sha256) for number, name, sha256 in rows}
    for migration in wanted:
        name, sha256 = applied.pop(migration.number, (migration.name, migration.sha256))
        if sha256 != migration.sha256:
            raise MigrationMismatch(
                f"The migration {migration.label} differs from {migration.number:04d}_{name} that this database ran: "
                "a migration must not change after it was released."
            )
    if applied:
        raise MigrationMismatch(
            f"This database is at migration {max(applied):04d}, and this program ends at {len(wanted):04d}: "
            "start a program at least as new as the one that migrated it."
        )
    done = {number for number, _, _ in rows}
    return tuple(migration for migration in wanted if migration.number not in done)


async def _run(connection: Connection, migration: Migration, deadline: float) -> None:
    """Tried again where a statement does not get its lock."""
    while True:
        try:
            async with connection.transaction() if migration.transactional else nullcontext():
                for statement in migration.statements:
                    await connection.execute(statement)
                values = {"number": migration.number, "name": migration.name, "sha256": migration.sha256}
                await connection.execute(SQL.record, values)
            return
        except LockNotAvailable as error:
            if monotonic() > deadline:
                raise TimedOut(f"The migration {migration.label} did not get its locks in time.") from error
            _logger.warning("migration %s waits for a lock that others hold; trying again", migration.label)
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _migration_lock(url: str, deadline: float) -> AsyncIterator[None]:
    """Hold the migration lock, in a transaction of its own: through a pooler, too. It is polled: a waiting statement
    would hold a snapshot, for which CREATE INDEX CONCURRENTLY in the process that has the lock would wait in turn."""
    async with connect(url, application_name="azimuth migrate") as connection, connection.transaction():
        while await connection.fetch_one(SQL.try_lock, {"key": _LOCK_KEY}) != (True,):
            if monotonic() > deadline:
                raise TimedOut("Another process is still migrating this database.")
            await connection.execute(SQL.stay_idle)
            await asyncio.sleep(_POLL_SECONDS)
        await connection.execute(SQL.stay_idle)
        yield
