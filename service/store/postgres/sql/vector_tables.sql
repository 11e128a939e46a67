-- name: create
-- The table of one version.
CREATE TABLE {vectors} (
    collection_id bigint NOT NULL CHECK (collection_id = {collection_id}),
    document_id text COLLATE "C" NOT NULL,
    chunk integer NOT NULL,
    embedder_version integer NOT NULL CHECK (embedder_version = {number}),
    content_revision bigint NOT NULL,
    starts bigint NOT NULL,
    ends bigint NOT NULL,
    seal bytea NOT NULL,
    embedding {type}({dimensions}) NOT NULL CHECK ({length}(embedding) BETWEEN 1e-15 AND 1e15),
    PRIMARY KEY (collection_id, document_id, chunk),
    CONSTRAINT sealed CHECK (seal = substring(sha256({send}(embedding) || {label}::bytea) FOR {seal_bytes}))
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- name: set_storage
-- Whether vectors are kept inside their rows (PLAIN) or beside them (EXTERNAL).
ALTER TABLE {vectors} ALTER COLUMN embedding SET STORAGE {storage};

-- name: copy_rows
-- The vectors of what the documents of another collection are now, for another version of the same space and its seal.
INSERT INTO {vectors} (
    collection_id, document_id, chunk, embedder_version, content_revision, starts, ends, seal, embedding
)
SELECT {collection_id}, v.document_id, v.chunk, {number}, 1, v.starts, v.ends,
       substring(sha256({send}(v.embedding) || {label}::bytea) FOR {seal_bytes}), v.embedding
FROM {source} AS v
JOIN documents AS d
    ON d.collection_id = v.collection_id AND d.document_id = v.document_id
    AND d.content_revision = v.content_revision AND d.deleted_at IS NULL;

-- name: drop
-- The table with its index.
DROP TABLE IF EXISTS {vectors};

-- name: create_index
-- The index, built beside running writes.
CREATE INDEX CONCURRENTLY {index} ON {vectors} USING {kind} ({indexed}) WITH ({options});

-- name: drop_index
-- The index alone.
DROP INDEX CONCURRENTLY IF EXISTS {index};

-- name: set_index
-- The options that the next build of the index follows.
ALTER INDEX {index} SET ({options});

-- name: rebuild_index
-- The index anew; searches and writes use the old one meanwhile.
REINDEX INDEX CONCURRENTLY {index};

-- name: analyze
-- The planner's statistics of the table.
ANALYZE {vectors};
