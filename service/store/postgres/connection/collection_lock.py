"""Writers of documents, and who must be alone with a collection.

A writer holds the collection's row FOR KEY SHARE from before it reads which versions are written until it commits
(`hold_collection` of `documents.sql`). Who changes that set, or deletes the collection, takes the row FOR UPDATE: it
waits for the writers in progress, and those after it see the change. A lock of a row is not fair, for writers who
overlap would keep it for ever; so both pass by a lock that is.
"""

from collections.abc import Sequence

from service.core.ids import CollectionId
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection

SQL = sql_files.load("collection_lock")


async def alone(connection: Connection, collection_id: CollectionId) -> bool:
    """Lock the collection against writers until the transaction ends, waiting for those in progress.

    False where there is no such collection.
    """
    await connection.execute(SQL.first_in_line, {"id": collection_id})
    return await (await connection.execute(SQL.alone, {"id": collection_id})).fetchone() is not None


async def present(connection: Connection, collection_id: CollectionId) -> bool:
    """Keep the collection from being deleted until the transaction ends; False where there is none."""
    return await (await connection.execute(SQL.present, {"id": collection_id})).fetchone() is not None


async def unhurried(connection: Connection) -> None:
    """Let this transaction take as long as there is to delete."""
    await connection.execute(SQL.no_statement_timeout)


async def cancel_builds(connection: Connection, tables: Sequence[str]) -> None:
    """End index builds on tables that are to be dropped."""
    await connection.execute(SQL.cancel_builds, {"tables": list(tables)})
