-- name: hold_collection
-- Keeps a collection, and which of its versions are written, as it is while documents are written; no row where it is gone.
-- The lock of the row says so, and gives the transaction an id; before it, writers queue behind whoever locks the row exclusively (`collection_lock.py`).
WITH queued AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtextextended('azimuth writers ' || %(collection_id)s::bigint, 0))
)
SELECT pg_current_xact_id()::text::bigint FROM collections AS c CROSS JOIN queued WHERE c.id = %(collection_id)s FOR KEY SHARE OF c

-- name: upsert
-- Creates or replaces documents, locking them in order of their ids. What would not change, or does not pass, gives no row.
INSERT INTO documents AS d (
    collection_id, document_id, title, text, metadata, sent_metadata, content_hash, revision, content_revision,
    created_at, updated_at, image_digest
)
SELECT %(collection_id)s::bigint, n.document_id, n.title, n.text, n.metadata, n.sent,
       n.content_hash, 1, 1, %(now)s::timestamptz, %(now)s::timestamptz, n.image_digest
FROM unnest(
    %(ids)s::text[], %(titles)b::text[], %(texts)b::text[], %(metadata)b::jsonb[], %(sent)b::jsonb[],
    %(hashes)b::bytea[], %(images)b::bytea[]
) AS n (document_id, title, text, metadata, sent, content_hash, image_digest)
ORDER BY n.document_id COLLATE "C"
ON CONFLICT (collection_id, document_id) DO UPDATE SET
    title = excluded.title,
    text = excluded.text,
    metadata = excluded.metadata,
    sent_metadata = excluded.sent_metadata,
    content_hash = excluded.content_hash,
    image_digest = excluded.image_digest,
    revision = d.revision + 1,
    content_revision = CASE
        WHEN d.content_hash <> excluded.content_hash THEN d.revision + 1
        ELSE d.content_revision
    END,
    created_at = CASE WHEN d.deleted_at IS NOT NULL THEN excluded.created_at ELSE d.created_at END,
    -- A living document is always updated after it was created, whatever the clocks say: `created` below relies on it.
    updated_at = CASE
        WHEN d.deleted_at IS NOT NULL THEN excluded.updated_at
        ELSE greatest(excluded.updated_at, d.created_at + interval '1 microsecond')
    END,
    deleted_at = NULL
-- A tombstone's hash is empty: whatever comes back differs.
WHERE (
        d.content_hash <> excluded.content_hash
        OR d.metadata <> excluded.metadata
        OR d.sent_metadata IS DISTINCT FROM excluded.sent_metadata
    )
    AND (d.deleted_at IS NOT NULL OR {where})
RETURNING d.document_id, d.revision, d.content_revision, d.created_at = d.updated_at AS created

-- name: revisions
-- The revisions of documents that stay as they are.
SELECT document_id, revision, content_revision
FROM documents
WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[])

-- name: delete
-- Turns living documents that pass into tombstones, locking them in order of their ids. Asked of the locked row: what
-- was changed a moment ago, so that it passes no more, stays.
INSERT INTO documents AS d (
    collection_id, document_id, title, text, metadata, content_hash, revision, content_revision, created_at, updated_at,
    deleted_at
)
SELECT o.collection_id, o.document_id, '', '', '{{}}', '', o.revision + 1, o.revision + 1, o.created_at,
       %(now)s::timestamptz, %(now)s::timestamptz
FROM documents AS o
WHERE o.collection_id = %(collection_id)s AND o.document_id = ANY (%(ids)s::text[]) AND o.deleted_at IS NULL
ORDER BY o.document_id
ON CONFLICT (collection_id, document_id) DO UPDATE SET
    title = excluded.title,
    text = excluded.text,
    metadata = excluded.metadata,
    sent_metadata = NULL,
    content_hash = excluded.content_hash,
    image_digest = NULL,
    revision = d.revision + 1,
    content_revision = d.revision + 1,
    updated_at = excluded.updated_at,
    deleted_at = excluded.deleted_at
WHERE d.deleted_at IS NULL AND {where}
RETURNING d.document_id

-- name: get
-- Living documents by id.
SELECT document_id, title, text, coalesce(sent_metadata, metadata), revision, content_revision, created_at, updated_at,
       image_digest
FROM documents
WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[]) AND deleted_at IS NULL

-- name: page
-- The next living documents that pass, in byte order of their ids.
SELECT d.document_id, d.title, d.text, coalesce(d.sent_metadata, d.metadata), d.revision, d.content_revision,
       d.created_at, d.updated_at, d.image_digest
FROM documents AS d
WHERE d.collection_id = %(collection_id)s AND d.document_id > %(after)s AND d.deleted_at IS NULL AND {where}
ORDER BY d.document_id
LIMIT %(limit)s

-- name: lock_one
-- A living document that passes, until the transaction ends.
SELECT d.document_id, d.title, d.text, coalesce(d.sent_metadata, d.metadata), d.revision, d.content_revision,
       d.created_at, d.updated_at, d.image_digest
FROM documents AS d
WHERE d.collection_id = %(collection_id)s AND d.document_id = %(document_id)s AND d.deleted_at IS NULL AND {where}
FOR UPDATE

-- name: count
-- How many living documents pass.
SELECT count(*) FROM documents AS d WHERE d.collection_id = %(collection_id)s AND d.deleted_at IS NULL AND {where}

-- name: page_ids
-- The ids of the same, without reading their texts.
SELECT d.document_id
FROM documents AS d
WHERE d.collection_id = %(collection_id)s AND d.document_id > %(after)s AND d.deleted_at IS NULL AND {where}
ORDER BY d.document_id
LIMIT %(limit)s

-- name: filter_ids
-- Those of the named documents that live and pass.
SELECT d.document_id
FROM documents AS d
WHERE d.collection_id = %(collection_id)s AND d.document_id = ANY (%(ids)s::text[]) AND d.deleted_at IS NULL AND {where}

-- name: metadata
-- The metadata of living documents.
SELECT document_id, metadata
FROM documents
WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[]) AND deleted_at IS NULL

-- name: passages
-- The pieces of text that candidates point to, where their documents still are of that content and pass; and all of the
-- text where there is more of it, up to a number of bytes.
SELECT c.at, d.title, p.text, c.starts, coalesce(d.sent_metadata, d.metadata), d.revision,
       octet_length(p.text) < octet_length(d.text) AS partial,
       CASE
           WHEN octet_length(p.text) < octet_length(d.text)
               AND sum(octet_length(d.text)) OVER (ORDER BY c.at) <= %(whole_bytes)s THEN d.text
       END AS whole,
       d.image_digest IS NOT NULL AS image
FROM unnest(%(ids)s::text[], %(content_revisions)s::bigint[], %(starts)s::integer[], %(ends)s::integer[])
    WITH ORDINALITY AS c (document_id, content_revision, starts, ends, at)
JOIN documents AS d
    ON d.collection_id = %(collection_id)s
    AND d.document_id = c.document_id
    AND d.content_revision = c.content_revision
CROSS JOIN LATERAL (SELECT substring(d.text FROM c.starts + 1 FOR c.ends - c.starts) AS text OFFSET 0) AS p
WHERE d.deleted_at IS NULL AND {where}

-- name: texts
-- The texts of documents that still are of that content, in the order given, up to a number of bytes; always the first.
SELECT t.document_id, t.text
FROM (
    SELECT d.document_id, d.text, sum(octet_length(d.text)) OVER (ORDER BY n.at) AS total
    FROM unnest(%(ids)s::text[], %(content_revisions)s::bigint[])
        WITH ORDINALITY AS n (document_id, content_revision, at)
    JOIN documents AS d
        ON d.collection_id = %(collection_id)s
        AND d.document_id = n.document_id
        AND d.content_revision = n.content_revision
    WHERE d.deleted_at IS NULL
) AS t
WHERE t.total <= %(limit)s OR t.total = octet_length(t.text)
