-- name: totals
-- How many living documents a collection has, and how many documents and pages there are of all collections.
SELECT (SELECT count(*) FROM documents WHERE collection_id = %(collection_id)s)
           - (SELECT count(*) FROM documents WHERE collection_id = %(collection_id)s AND deleted_at IS NOT NULL),
       (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'documents'::regclass),
       pg_relation_size('documents') / current_setting('block_size')::bigint

-- name: sampled
-- Of the living documents on random pages: how many they are, and how many of them pass.
SELECT count(*), count(*) FILTER (WHERE {where})
FROM documents AS d TABLESAMPLE SYSTEM (%(percent)s)
WHERE d.collection_id = %(collection_id)s AND d.deleted_at IS NULL

-- name: horizon
-- Every transaction below this one is seen by whatever is asked next.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text

-- name: by_metadata
-- The ids of living documents that pass, at most so many.
SELECT d.document_id
FROM documents AS d
WHERE d.collection_id = %(collection_id)s AND d.deleted_at IS NULL AND {where}
LIMIT %(limit)s

-- name: in_range
-- Part of the statements below: the documents with a value in a range.
SELECT v.document_id FROM indexed_values AS v WHERE v.collection_id = %(collection_id)s AND {key}

-- name: single_value_in_range
-- Part of the statements below: those with a single value, which is in the range.
SELECT v.document_id FROM indexed_values AS v WHERE v.collection_id = %(collection_id)s AND {key} AND NOT v.several

-- name: several
-- Part of the statements below: the documents with several values in a field.
SELECT DISTINCT v.document_id
FROM indexed_values AS v
WHERE v.collection_id = %(collection_id)s AND v.field = %(field)s AND v.several

-- name: by_values
-- The documents that values name, at most so many; one is named for each of its values.
SELECT n.document_id FROM ({named}) AS n LIMIT %(limit)s

-- name: counted
-- How many there are, counted no further than so many.
SELECT count(*) FROM (SELECT FROM ({named}) AS n LIMIT %(limit)s) AS counted

-- name: by_values_and_metadata
-- The documents that values name, and which pass when they are asked; at most so many.
-- One by one, by their key: how many they are is known better than to the planner.
SELECT asked.document_id
FROM ({named}) AS n
CROSS JOIN LATERAL (
    SELECT d.document_id FROM documents AS d
    WHERE d.collection_id = %(collection_id)s AND d.document_id = n.document_id AND d.deleted_at IS NULL AND {where}
    LIMIT 1
) AS asked
LIMIT %(limit)s

-- name: by_both
-- Those whose one value decides, and those with several values that pass when they are asked.
(SELECT n.document_id FROM ({named}) AS n LIMIT %(limit)s)
UNION ALL
(SELECT asked.document_id
FROM ({several}) AS n
CROSS JOIN LATERAL (
    SELECT d.document_id FROM documents AS d
    WHERE d.collection_id = %(collection_id)s AND d.document_id = n.document_id AND d.deleted_at IS NULL AND {where}
    LIMIT 1
) AS asked
LIMIT %(limit)s)

-- name: changed
-- What changed since a horizon: each document and whether it passes now, with the horizon of this look. Too much to tell
-- where there are as many as the limit, or where tombstones were purged since.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text, c.purged_xid >= %(since)s::xid8, n.document_id,
       EXISTS (
           SELECT FROM documents AS d
           WHERE d.collection_id = c.id AND d.document_id = n.document_id AND d.deleted_at IS NULL AND {where}
           OFFSET 0
       )
FROM collections AS c
LEFT JOIN LATERAL (
    SELECT h.document_id
    FROM changes AS h
    WHERE h.collection_id = c.id AND h.xid >= %(since)s::xid8
    ORDER BY h.xid
    LIMIT %(limit)s
) AS n ON true
WHERE c.id = %(collection_id)s
