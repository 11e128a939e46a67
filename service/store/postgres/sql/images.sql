-- name: remove
-- Those of documents that are deleted, or have other content now.
DELETE FROM images WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[])

-- name: insert
-- Of documents that had none, or whose former one was removed in the same transaction.
INSERT INTO images (collection_id, document_id, type, content, preview)
SELECT %(collection_id)s::bigint, n.document_id, n.type, n.content, n.preview
FROM unnest(%(ids)s::text[], %(types)s::text[], %(contents)b::bytea[], %(previews)b::bytea[])
    AS n (document_id, type, content, preview)

-- name: get
-- Of living documents that pass.
SELECT d.document_id, d.image_digest, i.type, i.content, i.preview
FROM documents AS d
JOIN images AS i ON i.collection_id = d.collection_id AND i.document_id = d.document_id
WHERE d.collection_id = %(collection_id)s AND d.document_id = ANY (%(ids)s::text[]) AND d.deleted_at IS NULL AND {where}
