-- name: purge
-- Forgets some old tombstones and notes how far. A collection's latest changes stay: who followed all stands beyond.
WITH latest AS MATERIALIZED (
    SELECT s.id AS collection_id, l.xid
    FROM collections AS s
    CROSS JOIN LATERAL (
        SELECT c.xid FROM changes AS c WHERE c.collection_id = s.id ORDER BY c.xid DESC LIMIT 1
    ) AS l
), doomed AS (
    SELECT d.collection_id, d.document_id
    FROM documents AS d
    JOIN changes AS c ON c.collection_id = d.collection_id AND c.document_id = d.document_id
    JOIN latest AS l ON l.collection_id = c.collection_id AND c.xid < l.xid
    WHERE d.deleted_at < %(older_than)s
    LIMIT %(limit)s
), gone AS (
    DELETE FROM documents AS d
    USING doomed AS n
    WHERE d.collection_id = n.collection_id AND d.document_id = n.document_id AND d.deleted_at < %(older_than)s
    RETURNING d.collection_id, d.document_id
), forgotten AS (
    DELETE FROM changes AS c
    USING gone AS g
    WHERE c.collection_id = g.collection_id AND c.document_id = g.document_id
    RETURNING c.collection_id, c.xid
), noted AS (
    UPDATE collections AS s
    SET purged_xid = greatest(s.purged_xid, f.xid)
    FROM (
        SELECT DISTINCT ON (collection_id) collection_id, xid FROM forgotten ORDER BY collection_id, xid DESC
    ) AS f
    WHERE s.id = f.collection_id
)
SELECT count(*) FROM gone

-- name: forget_marks
-- Those of lexical indexes that nobody has written for long.
DELETE FROM lexical_indexes WHERE marked_at < %(before)s

-- name: repair_changes
-- Moves changes from the future (their ids were given out by another server) to the present.
UPDATE changes
SET xid = pg_current_xact_id()
WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())

-- name: repair_purged
-- The same for the marks of what was forgotten: every follower that stands before this moment starts again.
UPDATE collections
SET purged_xid = pg_current_xact_id()
WHERE purged_xid >= pg_snapshot_xmax(pg_current_snapshot())
