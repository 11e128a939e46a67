"""The images of documents in PostgreSQL. Who changes them holds the locks of their documents."""

from collections.abc import Mapping, Sequence

from service.core.ids import CollectionId, DocumentId
from service.core.images import Image
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection

SQL = sql_files.load("images")


async def remove(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    await connection.execute(SQL.remove, {"collection_id": collection_id, "ids": list(ids)})


async def replace(
    connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId], images: Mapping[DocumentId, Image]
) -> None:
    """Documents whose content is new have these images now, the others of `ids` none; without `content` it stays."""
    await remove(connection, collection_id, [id_ for id_ in ids if id_ not in images or images[id_].content])
    new = [(id_, images[id_]) for id_ in ids if id_ in images and images[id_].content]
    if new:
        values = {
            "collection_id": collection_id,
            "ids": [id_ for id_, _ in new],
            "types": [one.type for _, one in new],
            "contents": [one.content for _, one in new],
            "previews": [one.preview for _, one in new],
        }
        await connection.execute(SQL.insert, values)
