"""The images of documents in PostgreSQL. Who changes them holds the locks of their documents."""

from collections.abc import Mapping, Sequence

from service.core.ids import CollectionId, DocumentId
from service.core.images import Image
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection

SQL = sql_files.load("images")


async def replace(
    connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId], images: Mapping[DocumentId, Image]
) -> None:
    """Documents with new content have these images now, the others of `ids` none; one without `content` stays."""
    removed = [id_ for id_ in ids if id_ not in images or images[id_].content]
    await connection.execute(SQL.remove, {"collection_id": collection_id, "ids": removed})
    if new := {id_: images[id_] for id_ in removed if id_ in images}:
        columns = {"types": "type", "contents": "content", "previews": "preview"}
        values = {name: [getattr(one, field) for one in new.values()] for name, field in columns.items()}
        await connection.execute(SQL.insert, {"collection_id": collection_id, "ids": list(new), **values})
