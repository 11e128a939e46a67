"""Checks at each start whether the server can run the service; where it cannot, one clear sentence says why."""

import logging
import re
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from service.core.errors import DatabaseTooOld, Misconfigured, MissingRights
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, connect

_logger = logging.getLogger(__name__)

SQL = sql_files.load("server_checks")

MIN_SERVER = 14
"""The oldest major version that the PostgreSQL project still maintains and this service supports."""

MIN_VECTOR = (0, 8, 0)
"""The first with iterative index scans, without which a filter silently empties answers."""

SAFE_VECTOR = (0, 8, 4)
"""CVE-2026-3172 (a parallel HNSW build can leak data of other relations) is fixed in 0.8.2, corruption of an HNSW index
by vacuum in 0.8.3, a graph left unrepaired in 0.8.4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What the server reports about itself and about the connected role.

    `server_version`: as server_version_num, 180004 is 18.4. `vector_installed`: the version of pgvector in this
    database, `vector_available`: that which CREATE or ALTER EXTENSION would give; None where there is none.
    `vector_hidden`: it is in a schema that is not on the search path. `owner`: of our tables, where there are any.
    """

    server_version: int
    encoding: str
    database: str
    role: str
    vector_installed: str | None
    vector_available: str | None
    vector_hidden: bool
    may_create_extension: bool
    schema: str | None
    may_create_tables: bool
    owner: str | None
    owns_tables: bool


async def check(url: str) -> ServerFacts:
    """Refuse a server that cannot run the service; log what should be changed on one that can.

    DatabaseUnavailable where it does not answer (with host, port and database, never the password), DatabaseTooOld,
    MissingRights, or Misconfigured.
    """
    async with connect(url, application_name="azimuth check") as connection:
        async with connection.cursor(row_factory=class_row(ServerFacts)) as cursor:
            (facts,) = await (await cursor.execute(SQL.facts)).fetchall()
    require_usable(facts)
    for warning in warnings(facts):
        _logger.warning(warning)
    return facts


async def installation(pool: Pool) -> UUID:
    """The identity of this database, for files that belong to it such as lexical indexes."""
    ((identity,),) = await pool.fetch_all(SQL.installation)
    assert isinstance(identity, UUID)
    return identity


def require_usable(facts: ServerFacts) -> None:
    """Raise the first reason not to use the server, as `check` says."""
    if facts.server_version // 10_000 < MIN_SERVER:
        raise DatabaseTooOld(
            f"The server is PostgreSQL {facts.server_version // 10_000}, and {MIN_SERVER} or newer is needed."
        )
    if facts.encoding != "UTF8":
        raise Misconfigured(
            f"The database {facts.database} is encoded in {facts.encoding}, and UTF8 is needed: "
            "create it with ENCODING 'UTF8' TEMPLATE template0."
        )
    needed = f"pgvector {_text(MIN_VECTOR)} or newer (best {_text(SAFE_VECTOR)} or newer) is needed"
    version = facts.vector_installed or facts.vector_available
    if version is None:
        raise DatabaseTooOld(f"The server has no pgvector, and {needed}: install it on the server.")
    if _parsed(version) < MIN_VECTOR:
        newer = _parsed(facts.vector_available or "") >= MIN_VECTOR
        remedy = "run ALTER EXTENSION vector UPDATE" if newer else "install a newer one on the server"
        raise DatabaseTooOld(f"The server has pgvector {version}, and {needed}: {remedy}.")
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


def warnings(facts: ServerFacts) -> tuple[str, ...]:
    """Reasons to change something although the server is usable, one sentence each."""
    version = facts.vector_installed or facts.vector_available or ""
    if _parsed(version) >= SAFE_VECTOR:
        return ()
    return (
        f"pgvector {version} has known faults: a parallel index build can leak data (CVE-2026-3172, fixed in 0.8.2), "
        "vacuum can corrupt an HNSW index (fixed in 0.8.3) or leave its graph unrepaired (fixed in 0.8.4). "
        f"Install {_text(SAFE_VECTOR)} or newer, run ALTER EXTENSION vector UPDATE, and REINDEX the HNSW indexes.",
    )


def _parsed(version: str) -> tuple[int, ...]:
    """(0, 8, 5) for "0.8.5"; () for "", which is older than all."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
