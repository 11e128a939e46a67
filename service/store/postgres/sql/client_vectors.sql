-- name: accepts_vectors
-- A row where the version is written and its vectors come from clients.
SELECT number
FROM embedder_versions
WHERE collection_id = %(collection_id)s
    AND number = %(number)s
    AND state NOT IN ('retired', 'failed')
    AND spec ->> 'model' = %(external)s

-- name: end_jobs
-- Ends the jobs of these documents, locking in order of the ids.
WITH held AS (
    SELECT collection_id, document_id, embedder_version
    FROM jobs
    WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[]) AND embedder_version = %(number)s
    ORDER BY document_id
    FOR UPDATE
)
DELETE FROM jobs AS j
USING held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version

-- name: store
-- One chunk a document. What is there already for the same content, and equal as it is stored, gives no row.
INSERT INTO {vectors} AS v (
    collection_id, document_id, chunk, embedder_version, content_revision, starts, ends, seal, embedding
)
SELECT %(collection_id)s, n.document_id, 0, %(number)s, n.content_revision, 0, n.ends, n.seal,
       n.embedding
FROM unnest(%(ids)s::text[], %(content_revisions)s::bigint[], %(ends)s::bigint[], %(seals)b::bytea[],
            %(embeddings)b::{type}[])
    AS n (document_id, content_revision, ends, seal, embedding)
ORDER BY n.document_id COLLATE "C"
ON CONFLICT (collection_id, document_id, chunk) DO UPDATE SET
    content_revision = excluded.content_revision,
    ends = excluded.ends,
    seal = excluded.seal,
    embedding = excluded.embedding
WHERE v.content_revision <> excluded.content_revision OR v.embedding <> excluded.embedding
RETURNING v.document_id
