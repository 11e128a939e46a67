"""Collections: their rows, and the deletion of everything that belongs to one."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime

from psycopg import sql
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from service.core.collections import Collection, CollectionCounts, CollectionSettings, IndexedField, IndexSettings
from service.core.errors import CollectionNotFound, Conflict, NotFound
from service.core.filters import Filter
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.versions import Action, AuditEntry, EmbedderIdentity, EmbedderVersion
from service.store.postgres import audit, collection_copy
from service.store.postgres.collection_copy import insert
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Adapter, retrying
from service.store.postgres.filters import indexed_fields
from service.store.postgres.filters.filter_sql import predicate
from service.store.postgres.rows import collection_of
from service.store.postgres.vectors import vector_index, vector_tables

SQL = sql_files.load("collections")


class PostgresCollections(Adapter):
    """Adapter of `ports.Collections`."""

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        now: datetime,
        actor: str = "azimuth",
        index: IndexSettings | None = None,
    ) -> Collection:
        async with self._pool.transaction() as connection:
            collection, _ = await insert(
                connection, name, settings, identity, canary, index or IndexSettings(), now, actor
            )
        return collection

    async def update(
        self, collection: Collection, settings: CollectionSettings, entry: AuditEntry | None = None
    ) -> Collection:
        before = collection.settings
        values = {"id": collection.id, "settings": Jsonb(settings)}
        async with self._pool.transaction() as connection:
            if settings.indexed != before.indexed:
                # Every later write keeps the values of the new fields, and no write in progress goes on without them.
                await connection.lift_time_limit()
                await collection_lock.lock_exclusively(connection, collection.id)
            row = await connection.fetch_one(SQL.lock, values)
            if row is None:
                raise CollectionNotFound
            # Compared as this program reads them: a row that an older one wrote lacks what has its default.
            if collection_of(row).settings != before:
                raise Conflict("The settings were changed by somebody else at the same moment.")
            if settings == before:
                return collection_of(row)
            row = await connection.fetch_one(SQL.update, values)
            assert row is not None  # locked above
            if settings.indexed != before.indexed:
                now = datetime.now(UTC) if entry is None else entry.at
                await indexed_fields.declare(connection, collection.id, settings.field_types, now)
            if entry is not None:
                entry = dataclasses.replace(entry, details={**entry.details, "before": before, "after": settings})
                await audit.write(connection, collection.id, entry)
        return collection_of(row)

    async def by_name(self, name: CollectionName) -> Collection:
        row = await self._pool.fetch_one(SQL.by_name, {"name": name})
        if row is None:
            raise CollectionNotFound(f"There is no collection named {name}.")
        return collection_of(row)

    async def get(self, collection_id: CollectionId) -> Collection:
        row = await self._pool.fetch_one(SQL.get, {"id": collection_id})
        if row is None:
            raise CollectionNotFound
        return collection_of(row)

    async def rename(self, collection: Collection, name: CollectionName, entry: AuditEntry) -> Collection:
        entry = dataclasses.replace(entry, details={"before": collection.name, "after": name})
        async with self._pool.transaction() as connection:
            try:
                row = await connection.fetch_one(SQL.rename, {"id": collection.id, "name": name})
            except UniqueViolation as error:
                raise Conflict(f"There is a collection named {name} already.") from error
            if row is None:
                await self.get(collection.id)
                raise Conflict(f"There is an alias named {name} already.")
            await audit.write(connection, collection.id, entry)
        return collection_of(row)

    async def copy(
        self, source: Collection, version: EmbedderVersion, name: CollectionName, now: datetime, actor: str
    ) -> Collection:
        """One transaction of any size, of one snapshot."""
        return await retrying(lambda: collection_copy.copy(self._pool, source, version, name, now, actor))

    async def aliases(self) -> Mapping[CollectionName, CollectionName]:
        return dict(await self._pool.fetch_all(SQL.aliases))

    async def set_aliases(
        self, changes: Mapping[CollectionName, CollectionId | None], now: datetime, actor: str
    ) -> None:
        async with self._pool.transaction() as connection:
            for alias, id_ in sorted(changes.items()):  # two that change the same ones lock them in the same order
                query = SQL.delete_alias if id_ is None else SQL.set_alias
                row = await connection.fetch_one(query, {"alias": alias, "id": id_})
                if row is None and id_ is None:
                    raise NotFound(f"There is no alias named {alias}.")
                if row is None:
                    raise Conflict(f"{alias} is the name of a collection, or the collection was deleted.")
                action: Action = "alias_deleted" if id_ is None else "alias_set"
                entry = AuditEntry(at=now, actor=actor, action=action, details={"alias": alias})
                await audit.write(connection, row[0], entry)

    async def all(self) -> tuple[Collection, ...]:
        return tuple(map(collection_of, await self._pool.fetch_all(SQL.all)))

    async def delete(self, collection_id: CollectionId) -> None:
        """Does nothing where it is gone. One transaction of any size: a second or two for a million short documents.

        It waits for writers in progress, and later ones find the collection gone. Index builds on its tables are
        cancelled. Foreign keys delete audit and judgments.
        """
        await retrying(lambda: self._delete(collection_id))

    async def _delete(self, collection_id: CollectionId) -> None:
        key = {"id": collection_id}
        async with self._pool.transaction(even_when_full=True) as connection:
            await connection.lift_time_limit()
            await collection_lock.lock_exclusively(connection, collection_id)
            rows = await connection.fetch_all(SQL.version_numbers, key)
            numbers = [VersionNumber(number) for (number,) in rows]
            # The order in which every transaction takes its locks: documents, changes, jobs, vectors.
            await connection.execute(SQL.delete_documents, key)
            await connection.execute(SQL.delete_images, key)
            await indexed_fields.remove(connection, collection_id)
            await connection.execute(SQL.delete_changes, key)
            await connection.execute(SQL.delete_index_marks, key)
            await connection.execute(SQL.delete_jobs, key)
            tables = [vector_tables.vector_table(collection_id, number).table for number in numbers]
            await collection_lock.cancel_builds(connection, tables)
            for number in numbers:
                await connection.execute(vector_tables.drop_table(collection_id, number))
            await connection.execute(SQL.delete, key)

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        async with self._pool.connection() as connection:
            return tuple(field for _, field in await indexed_fields.declared(connection, collection_id))

    async def counts(self, collection: Collection, within: Filter | None = None) -> CollectionCounts:
        """Documents are counted (about 0.1 s for a million), chunks as PostgresVersions.status does it."""
        condition = predicate(within)
        query = SQL.counts if within is None else sql.SQL(SQL.counts_within).format(where=condition.expression)
        values = {**condition.values, "id": collection.id, "version": collection.active_version}
        async with self._pool.connection() as connection:
            ((documents, pending, failed),) = await connection.fetch_all(query, values)
            status = await vector_index.space_status(connection, collection.id, collection.active_version)
        chunks = status.rows if within is None else None
        return CollectionCounts(documents=documents, chunks=chunks, pending=pending, failed=failed)
