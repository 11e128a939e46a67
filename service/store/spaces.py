"""The physical spaces: how the table and the index of one embedder version are named and made, in one place.

Everything is composed of integers that the database itself gave out; nothing here comes from a user.
"""

from dataclasses import dataclass

from psycopg import sql

from service.domain import CollectionId, EmbedderVersion, VersionNumber

M = 16
EF_CONSTRUCTION = 64
"""HNSW: links of a node and candidates while building. pgvector's defaults; docs/decisions tells what was measured."""

MAX_INDEXED_DIMENSIONS = 4_000
"""pgvector builds HNSW over halfvec up to here; longer vectors are scanned exactly."""

_MAX_PLAIN_DIMENSIONS = 3_000
"""Inline storage spares a detour for each distance, yet a row with a long id must still fit an 8 kB page."""


@dataclass(frozen=True, slots=True)
class Space:
    """The names that belong to one version."""

    table: str
    index: str

    @property
    def table_identifier(self) -> sql.Identifier:
        return sql.Identifier(self.table)

    @property
    def index_identifier(self) -> sql.Identifier:
        return sql.Identifier(self.index)


def space(collection_id: CollectionId, number: VersionNumber) -> Space:
    table = f"vectors_{collection_id:d}_{number:d}"
    return Space(table=table, index=f"{table}_hnsw")


def space_of(version: EmbedderVersion) -> Space:
    return space(version.collection_id, version.number)


def create_table(collection_id: CollectionId, number: VersionNumber, dimensions: int) -> tuple[sql.Composed, ...]:
    """The statements that make a version's table. Its CHECKs make it impossible to mix spaces.

    Dead rows cost recall, so it is vacuumed earlier than other tables.
    """
    table = space(collection_id, number).table_identifier
    create = sql.SQL(
        """
        CREATE TABLE {table} (
            collection_id bigint NOT NULL CHECK (collection_id = {collection_id}),
            document_id text COLLATE "C" NOT NULL,
            chunk integer NOT NULL,
            embedder_version integer NOT NULL CHECK (embedder_version = {number}),
            content_revision bigint NOT NULL,
            starts bigint NOT NULL,
            ends bigint NOT NULL,
            embedding halfvec({dimensions}) NOT NULL CHECK (l2_norm(embedding) > 0),
            PRIMARY KEY (collection_id, document_id, chunk)
        ) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)
        """
    ).format(
        table=table,
        collection_id=sql.Literal(int(collection_id)),
        number=sql.Literal(int(number)),
        dimensions=sql.Literal(int(dimensions)),
    )
    storage = sql.SQL("PLAIN") if dimensions <= _MAX_PLAIN_DIMENSIONS else sql.SQL("EXTERNAL")
    alter = sql.SQL("ALTER TABLE {} ALTER COLUMN embedding SET STORAGE {}").format(table, storage)
    return create, alter


def drop_table(collection_id: CollectionId, number: VersionNumber) -> sql.Composed:
    return sql.SQL("DROP TABLE IF EXISTS {}").format(space(collection_id, number).table_identifier)


def create_index(version: EmbedderVersion) -> sql.Composed:
    """Build the HNSW index beside running writes. Cannot run inside a transaction."""
    names = space_of(version)
    return sql.SQL(
        "CREATE INDEX CONCURRENTLY {index} ON {table} USING hnsw (embedding halfvec_cosine_ops)"
        " WITH (m = {m}, ef_construction = {ef_construction})"
    ).format(
        index=names.index_identifier,
        table=names.table_identifier,
        m=sql.Literal(M),
        ef_construction=sql.Literal(EF_CONSTRUCTION),
    )


def drop_index(version: EmbedderVersion) -> sql.Composed:
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(space_of(version).index_identifier)


def analyze(version: EmbedderVersion) -> sql.Composed:
    return sql.SQL("ANALYZE {}").format(space_of(version).table_identifier)
