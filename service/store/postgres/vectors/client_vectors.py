"""Vectors that clients bring with their documents, for versions whose embedder is `external`.

Parts of the transaction that writes the documents (`documents.py`), which holds their rows and the collection's: what
is read here stays true until it is committed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from psycopg import sql

from service.core.collections import EXTERNAL
from service.core.concurrency import off_loop
from service.core.documents import Document
from service.core.errors import VersionNotFound
from service.core.ids import DocumentId
from service.core.vector_math import storable_rows
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection
from service.store.postgres.rows import version_key
from service.store.postgres.vectors.vector_tables import layout_of, on_table, seal

SQL = sql_files.load("client_vectors")
PART_BYTES = 2**19
"""Of the vectors of one statement: what the event loop copies at once."""


async def check_accepts_vectors(connection: Connection, version: EmbedderVersion) -> None:
    """VersionNotFound where the version takes no vectors of clients, or no longer."""
    values = {**version_key(version), "external": EXTERNAL}
    if await connection.fetch_one(SQL.accepts_vectors, values) is None:
        raise VersionNotFound(f"The embedder version {version.number} takes no vectors from clients.")


async def store(
    connection: Connection,
    version: EmbedderVersion,
    documents: Sequence[Document],
    content_revisions: Mapping[DocumentId, int],
) -> frozenset[DocumentId]:
    """Store each document's vector as its only chunk in this version, and end their jobs there.

    Returns those that had no vector of their present content there, or another one.
    """
    with_vectors = [one for one in documents if one.vector is not None and one.id in content_revisions]
    with_vectors.sort(key=lambda one: one.id)
    if not with_vectors:
        return frozenset()
    key = version_key(version)
    await connection.execute(SQL.end_jobs, {**key, "ids": [document.id for document in with_vectors]})
    query = on_table(SQL.store, version, type=sql.SQL(layout_of(version).type))
    stored: list[DocumentId] = []
    for values in await off_loop(0, lambda: list(_columns(version, with_vectors, content_revisions))):
        stored += [id_ for (id_,) in await connection.fetch_all(query, {**key, **values})]
    return frozenset(stored)


def _columns(
    version: EmbedderVersion, documents: Sequence[Document], content_revisions: Mapping[DocumentId, int]
) -> Iterator[Mapping[str, list[Any]]]:
    """The values of the statements that write the vectors, in the order of the ids, in which all writers lock."""
    layout = layout_of(version)
    size = max(1, PART_BYTES // (layout.width * version.dimensions))
    for at in range(0, len(documents), size):
        part = documents[at : at + size]
        vectors = np.array([document.vector for document in part], np.float64)
        embeddings = [layout.value(vector) for vector in storable_rows(vectors)]
        yield {
            "ids": [document.id for document in part],
            "content_revisions": [content_revisions[document.id] for document in part],
            "ends": [len(document.text) for document in part],
            "seals": [seal(version.collection_id, version.number, embedding) for embedding in embeddings],
            "embeddings": embeddings,
        }
