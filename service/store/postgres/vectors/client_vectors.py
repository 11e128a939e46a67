"""Vectors that clients bring with their documents, for versions whose embedder is `external`.

Parts of the transaction that writes the documents (`documents.py`), which holds their rows and the collection's: what
is read here stays true until it is committed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from psycopg import sql

from service.core.collections import EXTERNAL
from service.core.documents import Document
from service.core.errors import VersionNotFound
from service.core.ids import DocumentId, Vector
from service.core.vector_math import unit
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection
from service.store.postgres.rows import version_key
from service.store.postgres.vectors.vector_tables import layout_of, on_table, seal

SQL = sql_files.load("client_vectors")
AT_ONCE = 50
"""Vectors of one statement: what the event loop prepares and copies at once."""


async def check_accepts_vectors(connection: Connection, version: EmbedderVersion) -> None:
    """VersionNotFound where the version takes no vectors of clients, or no longer."""
    values = {**version_key(version), "external": EXTERNAL}
    if await (await connection.execute(SQL.accepts_vectors, values)).fetchone() is None:
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
    layout = layout_of(version)
    vectors = {document.id: document.vector for document in documents if document.vector is not None}
    if not vectors:
        return frozenset()
    key = version_key(version)
    await connection.execute(SQL.end_jobs, {**key, "ids": list(vectors)})
    query = on_table(SQL.store, version, type=sql.SQL(layout.type))
    ends = {document.id: len(document.text) for document in documents}
    stored: list[DocumentId] = []
    ids = sorted(vectors)  # the order in which all writers lock
    for at in range(0, len(ids), AT_ONCE):
        part = ids[at : at + AT_ONCE]
        embeddings = [layout.value(_normalized(vectors[id_])) for id_ in part]
        values = {
            **key,
            "ids": part,
            "content_revisions": [content_revisions[id_] for id_ in part],
            "ends": [ends[id_] for id_ in part],
            "seals": [seal(version.collection_id, version.number, embedding) for embedding in embeddings],
            "embeddings": embeddings,
        }
        stored += [row[0] for row in await (await connection.execute(query, values)).fetchall()]
    return frozenset(stored)


def _normalized(values: Sequence[float]) -> Vector:
    """Normalised to length 1. A vector without a direction is returned unchanged: the table rejects it."""
    normalized = unit(values)
    return np.asarray(values, np.float32) if normalized is None else normalized
