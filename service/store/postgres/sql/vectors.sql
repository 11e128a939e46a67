-- name: tables
-- The versions of a collection that have a table.
SELECT number FROM embedder_versions WHERE collection_id = %(collection_id)s AND state <> 'retired' ORDER BY number

-- name: remove
-- Removes all chunks of the named documents.
DELETE FROM {vectors} WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[])

-- name: copy
-- Adds chunks.
COPY {vectors} (collection_id, document_id, chunk, embedder_version, content_revision, starts, ends, seal, embedding)
FROM STDIN WITH (FORMAT binary)

-- name: nearest_indexed
-- The nearest chunks along the index. An iterative scan gives them almost in order, so they are sorted again.
WITH found AS MATERIALIZED (
    SELECT v.document_id, v.content_revision, v.chunk, v.starts, v.ends, v.embedding <=> %(vector)s AS distance
    FROM {vectors} AS v
    {only}
    ORDER BY v.embedding <=> %(vector)s
    LIMIT %(limit)s
)
SELECT document_id, content_revision, 1 - distance AS score, chunk, starts, ends
FROM found
ORDER BY distance + 0

-- name: nearest_rescored
-- Along an index of few bits a dimension: more than are wanted by the bits that differ, the best of them by their vectors.
WITH found AS MATERIALIZED (
    SELECT v.document_id, v.content_revision, v.chunk, v.starts, v.ends, v.embedding <=> %(vector)s AS distance
    FROM {vectors} AS v
    {only}
    ORDER BY {stored} <~> {asked}
    LIMIT %(rescored)s
)
SELECT document_id, content_revision, 1 - distance AS score, chunk, starts, ends
FROM found
ORDER BY distance + 0
LIMIT %(limit)s

-- name: nearest_exact
-- The nearest chunks by looking at all of them; the index cannot serve this expression, which each row computes once.
SELECT found.document_id, found.content_revision, 1 - found.distance AS score, found.chunk, found.starts, found.ends
FROM (
    SELECT v.document_id, v.content_revision, v.chunk, v.starts, v.ends, (v.embedding <=> %(vector)s) + 0 AS distance
    FROM {vectors} AS v
    {only}
    ORDER BY distance
    LIMIT %(limit)s
) AS found
ORDER BY found.distance

-- name: nearest_documents
-- The nearest documents by looking at all of their chunks: of each its best.
SELECT found.document_id, found.content_revision, 1 - found.distance AS score, found.chunk, found.starts, found.ends
FROM (
    SELECT DISTINCT ON (v.document_id) v.document_id, v.content_revision, v.chunk, v.starts, v.ends,
           (v.embedding <=> %(vector)s) + 0 AS distance
    FROM {vectors} AS v
    {only}
    ORDER BY v.document_id, distance
) AS found
ORDER BY found.distance
LIMIT %(limit)s

-- name: only_ids
-- Part of the statement above: chunks of the named documents. A join with the names would be a third slower. They come
-- out of a subquery so that the planner does not look at each of them: of 50,000 that takes a fourth of the scan.
WHERE v.collection_id = %(collection_id)s AND v.document_id = ANY ((SELECT %(ids)s::text[])::text[])

-- name: only_matching
-- Part of the statements above: chunks of living documents that pass a filter.
JOIN documents AS d
    ON d.collection_id = v.collection_id AND d.document_id = v.document_id AND d.deleted_at IS NULL AND {where}

-- name: score
-- The best chunks of each of the named documents, at most so many of each. The index cannot serve this expression.
-- Without a vector the first ones, scored 0.
SELECT n.document_id, best.content_revision, coalesce(1 - best.distance, 0) AS score, best.chunk, best.starts, best.ends
FROM unnest(%(ids)s::text[]) AS n (document_id)
CROSS JOIN LATERAL (
    SELECT v.content_revision, v.chunk, v.starts, v.ends, (v.embedding <=> %(vector)s) + 0 AS distance
    FROM {vectors} AS v
    WHERE v.collection_id = %(collection_id)s AND v.document_id = n.document_id
    ORDER BY distance, v.chunk
    LIMIT %(chunks)s
) AS best

-- name: directions
-- The mean of the vectors of each of the named documents, as far as they are of what it is now.
SELECT v.document_id, avg(v.embedding::vector) AS mean
FROM documents AS d
JOIN {vectors} AS v
    ON v.collection_id = d.collection_id AND v.document_id = d.document_id AND v.content_revision = d.content_revision
WHERE d.collection_id = %(collection_id)s AND d.document_id = ANY (%(ids)s::text[]) AND d.deleted_at IS NULL
GROUP BY v.document_id

-- name: get
-- The vectors of the named chunks; where a revision is named as well, of that content alone.
SELECT v.document_id, v.chunk, v.embedding
FROM unnest(%(ids)s::text[], %(chunks)s::integer[], %(revisions)s::bigint[]) AS n (document_id, chunk, revision)
JOIN {vectors} AS v
    ON v.collection_id = %(collection_id)s AND v.document_id = n.document_id AND v.chunk = n.chunk
WHERE n.revision IS NULL OR v.content_revision = n.revision

-- name: chunks
-- All chunks of the named documents.
SELECT v.document_id, v.content_revision, 0.0::double precision AS score, v.chunk, v.starts, v.ends, v.embedding
FROM {vectors} AS v
WHERE v.collection_id = %(collection_id)s AND v.document_id = ANY (%(ids)s::text[])
ORDER BY v.document_id, v.chunk

-- name: sample
-- Random chunks from random pages.
SELECT v.document_id, v.content_revision, 1.0::double precision AS score, v.chunk, v.starts, v.ends, v.embedding
FROM {vectors} AS v TABLESAMPLE SYSTEM (%(percent)s)
ORDER BY random()
LIMIT %(size)s
