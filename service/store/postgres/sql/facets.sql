-- name: horizon
-- Every transaction below this one is seen by whatever is asked next.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text

-- name: counted_documents
-- The number of living documents, or the limit where there are more.
SELECT count(*)
FROM (SELECT FROM documents WHERE collection_id = %(collection_id)s AND deleted_at IS NULL LIMIT %(limit)s) AS d

-- name: all_values
-- The values of some fields in all living documents.
SELECT d.document_id, {cells}
FROM documents AS d
WHERE d.collection_id = %(collection_id)s AND d.deleted_at IS NULL

-- name: changed
-- What changed since a horizon: each document, whether it passes now (null: it is gone), and its values, with the horizon
-- of this look. Too much to tell where there are as many as the limit, or where tombstones were purged since.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text, c.purged_xid >= %(since)s::xid8, n.document_id, d.passes, {names}
FROM collections AS c
LEFT JOIN LATERAL (
    SELECT h.document_id
    FROM changes AS h
    WHERE h.collection_id = c.id AND h.xid >= %(since)s::xid8
    ORDER BY h.xid
    LIMIT %(limit)s
) AS n ON true
LEFT JOIN LATERAL (
    SELECT {where} AS passes, {cells}
    FROM documents AS d
    WHERE d.collection_id = c.id AND d.document_id = n.document_id AND d.deleted_at IS NULL
    OFFSET 0
) AS d ON true
WHERE c.id = %(collection_id)s

-- name: counted
-- How many living documents that pass have each list of values of one field; at most so many lists.
SELECT v.c0, count(*)
FROM (SELECT {cells} FROM documents AS d WHERE d.collection_id = %(collection_id)s AND d.deleted_at IS NULL AND {where}) AS v
GROUP BY v.c0
LIMIT %(limit)s
