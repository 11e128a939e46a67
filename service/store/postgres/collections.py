"""Collections: their rows, and everything that goes with them when they go."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime

from service.core.collections import Collection, CollectionCounts, CollectionSettings, IndexedField
from service.core.errors import CollectionNotFound, Conflict
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.versions import AuditEntry, EmbedderIdentity, VersionState
from service.store.postgres import audit, json_records
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Pool, retrying
from service.store.postgres.filters import indexed_fields
from service.store.postgres.rows import collection_of
from service.store.postgres.vectors import vector_tables
from service.store.postgres.versions import version_transitions, versions

SQL = sql_files.load("collections")

FIRST_VERSION = VersionNumber(1)


class PostgresCollections:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        now: datetime,
        actor: str = "azimuth",
    ) -> Collection:
        values = {
            "name": name,
            "settings": json_records.settings_to_json(settings),
            "active_version": FIRST_VERSION,
            "now": now,
        }
        async with self._pool.transaction() as connection:
            row = await (await connection.execute(SQL.insert, values)).fetchone()
            if row is None:
                raise Conflict(f"There is a collection named {name} already.")
            collection = collection_of(row)
            await version_transitions.insert(
                connection,
                collection.id,
                FIRST_VERSION,
                state=VersionState.ACTIVE,
                spec=settings.embedder,
                chunking=settings.chunking,
                identity=identity,
                canary=canary,
                now=now,
            )
            await indexed_fields.declare(connection, collection.id, settings.indexed, now, empty=True)
            details = {"settings": values["settings"]}
            entry = AuditEntry(at=now, actor=actor, action="created", version=FIRST_VERSION, details=details)
            await audit.write(connection, collection.id, entry)
        return collection

    async def update(
        self, collection: Collection, settings: CollectionSettings, entry: AuditEntry | None = None
    ) -> Collection:
        """As the port says; CollectionNotFound where it is gone."""
        values = {"id": collection.id, "settings": json_records.settings_to_json(settings)}
        async with self._pool.transaction() as connection:
            if settings.indexed != collection.settings.indexed:
                # Whoever writes after this keeps the values of the new fields, and nobody still writes without.
                await collection_lock.alone(connection, collection.id)
            row = await (await connection.execute(SQL.changing, values)).fetchone()
            if row is None:
                raise CollectionNotFound
            # Compared as this program reads them: a row that an older one wrote lacks what has its default.
            if collection_of(row).settings != collection.settings:
                raise Conflict("The settings were changed by somebody else at the same moment.")
            if settings == collection.settings:
                return collection_of(row)
            row = await (await connection.execute(SQL.update, values)).fetchone()
            assert row is not None  # locked above
            if settings.indexed != collection.settings.indexed:
                now = datetime.now(UTC) if entry is None else entry.at
                await indexed_fields.declare(connection, collection.id, settings.indexed, now)
            if entry is not None:
                details = {"before": json_records.settings_to_json(collection.settings), "after": values["settings"]}
                entry = dataclasses.replace(entry, details={**entry.details, **details})
                await audit.write(connection, collection.id, entry)
        return collection_of(row)

    async def by_name(self, name: CollectionName) -> Collection:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.by_name, {"name": name})).fetchone()
        if row is None:
            raise CollectionNotFound(f"There is no collection named {name}.")
        return collection_of(row)

    async def get(self, collection_id: CollectionId) -> Collection:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.get, {"id": collection_id})).fetchone()
        if row is None:
            raise CollectionNotFound
        return collection_of(row)

    async def all(self) -> tuple[Collection, ...]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.all)).fetchall()
        return tuple(map(collection_of, rows))

    async def delete(self, collection_id: CollectionId) -> None:
        """One transaction, whatever there is: one or two seconds for a million short documents.

        Nothing happens where it is gone. Index builds on its tables are cancelled. Whoever writes into the collection
        first locks its row FOR KEY SHARE, so this waits for them and they find it gone afterwards. Audit and judgments
        go by their foreign keys.
        """
        await retrying(lambda: self._delete(collection_id))

    async def _delete(self, collection_id: CollectionId) -> None:
        identity = {"id": collection_id}
        async with self._pool.transaction() as connection:
            await collection_lock.unhurried(connection)
            await collection_lock.alone(connection, collection_id)
            rows = await (await connection.execute(SQL.version_numbers, identity)).fetchall()
            numbers = [VersionNumber(number) for (number,) in rows]
            # The order in which every transaction takes its locks: documents, changes, jobs, vectors.
            await connection.execute(SQL.delete_documents, identity)
            await indexed_fields.remove(connection, collection_id)
            await connection.execute(SQL.delete_changes, identity)
            await connection.execute(SQL.delete_jobs, identity)
            tables = [vector_tables.vector_table(collection_id, number).table for number in numbers]
            await collection_lock.cancel_builds(connection, tables)
            for number in numbers:
                await connection.execute(vector_tables.drop_table(collection_id, number))
            await connection.execute(SQL.delete, identity)

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        async with self._pool.connection() as connection:
            return tuple(field for _, field in await indexed_fields.declared(connection, collection_id))

    async def counts(self, collection: Collection) -> CollectionCounts:
        """Documents are counted (about 0.1 s for a million), chunks as PostgresVersions.status does it."""
        values = {"id": collection.id, "version": collection.active_version}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.counts, values)).fetchone()
            status = await versions.space_status(connection, collection.id, collection.active_version)
        assert row is not None
        documents, pending, failed = row
        return CollectionCounts(documents=documents, chunks=status.rows, pending=pending, failed=failed)
