"""The lock between writers of documents and whoever needs a collection exclusively.

A writer holds the collection's row FOR KEY SHARE from before it reads which versions are written until it commits
(`hold_collection` of `documents.sql`). Whoever changes that set, or deletes the collection, locks the row FOR UPDATE:
it waits for the writers in progress, and later writers see the change. Row locks are not fair, so overlapping writers
could keep the row for ever; an advisory lock, which is fair, is taken before it.
"""

from service.core.ids import CollectionId
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection

SQL = sql_files.load("collection_lock")


async def lock_exclusively(connection: Connection, collection_id: CollectionId) -> bool:
    """Lock the collection against writers until the transaction ends; waits for those in progress.

    False where there is no such collection.
    """
    await connection.execute(SQL.queue_writers, {"id": collection_id})
    return await connection.fetch_one(SQL.for_update, {"id": collection_id}) is not None


async def prevent_deletion(connection: Connection, collection_id: CollectionId) -> bool:
    """Keep the collection from being deleted until the transaction ends. False where there is none."""
    return await connection.fetch_one(SQL.for_key_share, {"id": collection_id}) is not None


async def cancel_builds(connection: Connection, tables: list[str]) -> None:
    """Cancel index builds on tables that are about to be dropped."""
    await connection.execute(SQL.cancel_builds, {"tables": tables})
