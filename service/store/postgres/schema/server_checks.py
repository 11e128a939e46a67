"""Can this server carry the service? Asked once at each start, answered in one clear sentence where it cannot."""

import logging
import re
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from service.core.errors import DatabaseTooOld, Misconfigured, MissingRights
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, connect, translated

_logger = logging.getLogger(__name__)

SQL = sql_files.load("server_checks")

MIN_SERVER = 14
"""The oldest major version that the PostgreSQL project still repairs and this service is built for."""

MIN_VECTOR = (0, 8, 0)
"""Iterative index scans, without which a filter silently empties answers, came with it."""

SOUND_VECTOR = (0, 8, 4)
"""CVE-2026-3172 (a parallel HNSW build can leak data of other relations) is fixed in 0.8.2, corruption of an HNSW index
by vacuum in 0.8.3, a graph left unrepaired in 0.8.4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What the server says of itself and of the role that is connected."""

    server_version: int
    """As server_version_num: 180004 is 18.4."""
    encoding: str
    database: str
    role: str
    vector_installed: str | None
    """Version of pgvector in this database; None where the extension was not created yet."""
    vector_available: str | None
    """Version that CREATE or ALTER EXTENSION would give; None where the server does not have it."""
    vector_hidden: bool
    """It was created in a schema that is not on the search path."""
    may_create_extension: bool
    schema: str | None
    may_create_tables: bool
    owner: str | None
    """Of our tables, where there are any."""
    owns_tables: bool


async def check(url: str) -> ServerFacts:
    """Refuse a server that cannot carry the service; log what should be changed on one that can.

    DatabaseUnavailable where it does not answer (with host, port and database, never the password), DatabaseTooOld,
    MissingRights, or Misconfigured.
    """
    with translated():
        async with await connect(url, application_name="azimuth check") as connection:
            async with connection.cursor(row_factory=class_row(ServerFacts)) as cursor:
                facts = await (await cursor.execute(SQL.facts)).fetchone()
    assert facts is not None
    judge(facts)
    for warning in warnings(facts):
        _logger.warning(warning)
    return facts


async def installation(pool: Pool) -> UUID:
    """What names this database for files that belong to it, such as lexical indexes."""
    async with pool.connection() as connection:
        row = await (await connection.execute(SQL.installation)).fetchone()
    assert row is not None
    identity: UUID = row[0]
    return identity


def judge(facts: ServerFacts) -> None:
    """Raise what forbids to use it, as `check` says."""
    _judge_versions(facts)
    _judge_rights(facts)


def warnings(facts: ServerFacts) -> tuple[str, ...]:
    """What works and yet should be changed, one sentence each."""
    version = facts.vector_installed or facts.vector_available or ""
    if _parsed(version) >= SOUND_VECTOR:
        return ()
    return (
        f"pgvector {version} has known faults: a parallel index build can leak data (CVE-2026-3172, fixed in 0.8.2), "
        "vacuum can corrupt an HNSW index (fixed in 0.8.3) or leave its graph unrepaired (fixed in 0.8.4). "
        f"Install {_text(SOUND_VECTOR)} or newer, run ALTER EXTENSION vector UPDATE, and REINDEX the HNSW indexes.",
    )


def _judge_versions(facts: ServerFacts) -> None:
    if facts.server_version // 10_000 < MIN_SERVER:
        raise DatabaseTooOld(
            f"The server is PostgreSQL {facts.server_version // 10_000}, and {MIN_SERVER} or newer is needed."
        )
    if facts.encoding != "UTF8":
        raise Misconfigured(
            f"The database {facts.database} is encoded in {facts.encoding}, and UTF8 is needed: "
            "create it with ENCODING 'UTF8' TEMPLATE template0."
        )
    needed = f"pgvector {_text(MIN_VECTOR)} or newer (best {_text(SOUND_VECTOR)} or newer) is needed"
    version = facts.vector_installed or facts.vector_available
    if version is None:
        raise DatabaseTooOld(f"The server has no pgvector, and {needed}: install it on the server.")
    if _parsed(version) < MIN_VECTOR:
        newer = _parsed(facts.vector_available or "") >= MIN_VECTOR
        remedy = "run ALTER EXTENSION vector UPDATE" if newer else "install a newer one on the server"
        raise DatabaseTooOld(f"The server has pgvector {version}, and {needed}: {remedy}.")


def _judge_rights(facts: ServerFacts) -> None:
    if facts.vector_hidden:
        raise Misconfigured(
            f"pgvector is in a schema that the role {facts.role} does not search: "
            f"ALTER ROLE {facts.role} SET search_path to one that includes it."
        )
    if facts.vector_installed is None and not facts.may_create_extension:
        raise MissingRights(
            f"The role {facts.role} may not create the extension vector in {facts.database}: "
            "let an administrator run CREATE EXTENSION vector there."
        )
    if facts.schema is None:
        raise MissingRights(
            f"The role {facts.role} has no schema for its tables in {facts.database}: "
            "none on its search_path exists or may be used."
        )
    if not facts.may_create_tables:
        raise MissingRights(
            f"The role {facts.role} may not create tables in the schema {facts.schema} of {facts.database}: "
            f"GRANT CREATE ON SCHEMA {facts.schema} TO {facts.role}."
        )
    if not facts.owns_tables:
        raise MissingRights(
            f"The tables in the schema {facts.schema} of {facts.database} belong to {facts.owner}: "
            f"connect as that role, or GRANT {facts.owner} TO {facts.role}."
        )


def _parsed(version: str) -> tuple[int, ...]:
    """(0, 8, 5) of "0.8.5"; () of nothing, which is older than all."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
