"""A collection begins with its first version: empty, or as a copy of another one in the same space."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from service.core.collections import Collection, CollectionSettings, IndexSettings
from service.core.errors import CollectionNotFound, Conflict
from service.core.ids import CollectionName, VersionNumber
from service.core.versions import AuditEntry, EmbedderIdentity, EmbedderVersion, VersionState
from service.store.postgres import audit, queue
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.filters import indexed_fields
from service.store.postgres.rows import collection_of
from service.store.postgres.vectors import vector_tables
from service.store.postgres.versions import version_transitions

SQL = sql_files.load("collection_copy")

FIRST_VERSION = VersionNumber(1)


async def insert(
    connection: Connection,
    name: CollectionName,
    settings: CollectionSettings,
    identity: EmbedderIdentity,
    canary: Mapping[str, tuple[float, ...]],
    index: IndexSettings,
    now: datetime,
    actor: str,
    source: CollectionName | None = None,
) -> tuple[Collection, EmbedderVersion]:
    """A collection without documents yet. Conflict where the name is taken. `source`: what it is to be a copy of."""
    values = {"name": name, "settings": Jsonb(settings), "active_version": FIRST_VERSION, "now": now}
    row = await connection.fetch_one(SQL.insert, values)
    if row is None:
        raise Conflict(f"There is a collection or an alias named {name} already.")
    collection = collection_of(row)
    version = EmbedderVersion(
        collection_id=collection.id,
        number=FIRST_VERSION,
        state=VersionState.ACTIVE,
        spec=settings.embedder,
        chunking=settings.chunking,
        identity=identity,
        fingerprint=identity.fingerprint,
        canary=canary,
        index=index,
        created_at=now,
    )
    await version_transitions.insert(connection, version)
    await indexed_fields.declare(connection, collection.id, settings.field_types, now, empty=source is None)
    details: dict[str, Any] = {"settings": settings, **({} if source is None else {"copy_of": source})}
    entry = AuditEntry(at=now, actor=actor, action="created", version=FIRST_VERSION, details=details)
    await audit.write(connection, collection.id, entry)
    return collection, version


async def copy(
    pool: Pool, source: Collection, version: EmbedderVersion, name: CollectionName, now: datetime, actor: str
) -> Collection:
    """Copy the documents, and their vectors of this version. What it has not encoded yet is encoded in the copy."""
    settings = source.settings
    if settings.tuned is not None:
        tuned = dataclasses.replace(settings.tuned, version=FIRST_VERSION)
        settings = dataclasses.replace(settings, tuned=tuned if settings.tuned.version == version.number else None)
    async with pool.transaction() as connection:
        await connection.execute(SQL.one_snapshot)
        await connection.lift_time_limit()
        if not await collection_lock.prevent_deletion(connection, source.id):
            raise CollectionNotFound
        spaces = (version.identity, version.canary, version.index)
        collection, own = await insert(connection, name, settings, *spaces, now, actor, source.name)
        values = {"source": source.id, "collection_id": collection.id, "now": now}
        await connection.execute(SQL.documents, values)
        await connection.execute(SQL.images, values)
        await connection.execute(SQL.changes, values)
        with vector_tables.missing_table(version.number):
            await connection.execute(vector_tables.copy_rows(version, own))
        rows = await connection.fetch_all(vector_tables.on_table(SQL.without_vectors, own), values)
        await queue.enqueue(connection, collection.id, {id_: 1 for (id_,) in rows}, now, {})
    return collection
