-- name: insert
-- No row where the name is taken, also as an alias; waits for another that is just taking it.
INSERT INTO collections (name, settings, active_version, created_at)
SELECT %(name)s, %(settings)s, %(active_version)s, %(now)s
WHERE NOT EXISTS (SELECT FROM aliases WHERE alias = %(name)s)
ON CONFLICT (name) DO NOTHING
RETURNING id, name, settings, active_version, previous_version, created_at

-- name: one_snapshot
-- All statements of the transaction see the same state.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: documents
-- The living documents of another collection, with a revision of their own.
INSERT INTO documents (
    collection_id, document_id, title, text, metadata, sent_metadata, content_hash, revision, content_revision,
    created_at, updated_at, image_digest
)
SELECT %(collection_id)s, document_id, title, text, metadata, sent_metadata, content_hash, 1, 1, created_at, updated_at,
       image_digest
FROM documents
WHERE collection_id = %(source)s AND deleted_at IS NULL

-- name: images
-- Theirs.
INSERT INTO images (collection_id, document_id, type, content, preview)
SELECT %(collection_id)s, i.document_id, i.type, i.content, i.preview
FROM images AS i
JOIN documents AS d ON d.collection_id = i.collection_id AND d.document_id = i.document_id
WHERE i.collection_id = %(source)s AND d.deleted_at IS NULL

-- name: changes
-- All of them in the feed.
INSERT INTO changes (collection_id, document_id, xid, changed_at)
SELECT collection_id, document_id, pg_current_xact_id(), %(now)s::timestamptz
FROM documents
WHERE collection_id = %(collection_id)s

-- name: without_vectors
-- The documents that are to be encoded.
SELECT d.document_id
FROM documents AS d
LEFT JOIN {vectors} AS v
    ON v.collection_id = d.collection_id AND v.document_id = d.document_id AND v.chunk = 0
WHERE d.collection_id = %(collection_id)s AND v.document_id IS NULL
