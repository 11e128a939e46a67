-- name: add
-- Adds sums to those of the same minute, whichever process brought them. In one order, so that nobody waits in a circle.
INSERT INTO recall_probes AS p
    (collection_id, embedder_version, leg, plan, band, ef_search, minute,
     queries, recall, recall_squares, distance_recall, seconds)
SELECT %(collection_id)s, n.*
FROM unnest(
    %(version)s::integer[], %(leg)s::text[], %(plan)s::text[], %(band)s::text[], %(ef_search)s::integer[],
    %(minutes)s::timestamptz[], %(queries)s::bigint[], %(recall)s::double precision[],
    %(recall_squares)s::double precision[], %(distance_recall)s::double precision[], %(seconds)s::double precision[]
) AS n (embedder_version, leg, plan, band, ef_search, minute, queries, recall, recall_squares, distance_recall, seconds)
ORDER BY n.embedder_version, n.leg, n.plan, n.band, n.ef_search, n.minute
ON CONFLICT (collection_id, embedder_version, leg, plan, band, ef_search, minute) DO UPDATE SET
    queries = p.queries + excluded.queries,
    recall = p.recall + excluded.recall,
    recall_squares = p.recall_squares + excluded.recall_squares,
    distance_recall = p.distance_recall + excluded.distance_recall,
    seconds = p.seconds + excluded.seconds

-- name: since
-- What was measured from a moment on, oldest first, in bins of so many minutes.
SELECT date_bin(%(width)s, minute, 'epoch') AS bin, embedder_version, leg, plan, band, ef_search,
    sum(queries)::bigint, sum(recall), sum(recall_squares), sum(distance_recall), sum(seconds)
FROM recall_probes
WHERE collection_id = %(collection_id)s AND minute >= %(moment)s
GROUP BY bin, embedder_version, leg, plan, band, ef_search
ORDER BY bin, embedder_version, leg, plan, band, ef_search

-- name: delete_before
-- Of every collection.
DELETE FROM recall_probes WHERE minute < %(before)s

-- name: ef_settings
-- What the controller has chosen, of all versions.
SELECT embedder_version AS version, band, ef_search, missed, reason, changed_at, target
FROM search_efforts
WHERE collection_id = %(collection_id)s
ORDER BY embedder_version, band

-- name: put_ef_setting
-- One choice, in the place of the former one.
INSERT INTO search_efforts (collection_id, embedder_version, band, ef_search, missed, reason, changed_at, target)
VALUES (
    %(collection_id)s, %(version)s, %(band)s, %(ef_search)s, %(missed)s, %(reason)s, %(changed_at)s, %(target)s
)
ON CONFLICT (collection_id, embedder_version, band) DO UPDATE SET
    ef_search = excluded.ef_search,
    missed = excluded.missed,
    reason = excluded.reason,
    changed_at = excluded.changed_at,
    target = excluded.target

-- name: curve
-- NULL until it was calibrated.
SELECT curve FROM embedder_versions WHERE collection_id = %(collection_id)s AND number = %(number)s

-- name: put_curve
-- Changes no row where the version is gone.
UPDATE embedder_versions SET curve = %(curve)s
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state <> 'retired'
