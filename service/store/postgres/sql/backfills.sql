-- name: status
-- How far a backfill has read, and how many of its jobs wait. No row where there is none.
SELECT v.backfill_enqueued, v.backfill_everything,
       (SELECT count(*)
        FROM jobs AS j
        WHERE j.collection_id = v.collection_id
            AND j.embedder_version = v.number
            AND j.priority >= 2
            AND j.set_aside_at IS NULL)
FROM embedder_versions AS v
WHERE v.collection_id = %(collection_id)s AND v.number = %(number)s AND v.state = 'backfilling'

-- name: lock
-- Keeps the collection from being deleted and others from reading further, until this portion is enqueued.
SELECT v.backfill_cursor, v.spec ->> 'model' = 'external' AS external
FROM collections AS c
JOIN embedder_versions AS v ON v.collection_id = c.id
WHERE v.collection_id = %(collection_id)s AND v.number = %(number)s AND v.state = 'backfilling'
FOR KEY SHARE OF c FOR NO KEY UPDATE OF v

-- name: portion
-- The next documents, tombstones too, for an index alone finds them: how many, and the last of them.
SELECT count(*), max(document_id)
FROM (
    SELECT document_id
    FROM documents
    WHERE collection_id = %(collection_id)s AND document_id > %(after)s
    ORDER BY document_id
    LIMIT %(limit)s
) AS portion

-- name: enqueue
-- Jobs for those of a portion that the version lacks. What was written meanwhile has a job already; one for older content
-- is left from a time in which the version was not written.
INSERT INTO jobs (collection_id, document_id, embedder_version, content_revision, priority, enqueued_at, available_at)
SELECT d.collection_id, d.document_id, %(number)s, d.content_revision, %(priority)s, %(now)s::timestamptz,
       %(now)s::timestamptz
FROM documents AS d
WHERE d.collection_id = %(collection_id)s
    AND d.document_id > %(after)s
    AND d.document_id <= %(last)s
    AND d.deleted_at IS NULL
    AND NOT EXISTS (
        SELECT FROM {vectors} AS v
        WHERE v.collection_id = d.collection_id
            AND v.document_id = d.document_id
            AND v.chunk = 0
            AND v.content_revision = d.content_revision
    )
    AND NOT EXISTS (
        SELECT FROM jobs AS j
        WHERE j.collection_id = d.collection_id
            AND j.document_id = d.document_id
            AND j.embedder_version = %(number)s
            AND j.content_revision >= d.content_revision
    )
ORDER BY d.document_id
{overwrite}
WHERE jobs.content_revision < excluded.content_revision

-- name: move_cursor
-- Where the next portion begins.
UPDATE embedder_versions
SET backfill_cursor = COALESCE(%(last)s, backfill_cursor),
    backfill_enqueued = backfill_enqueued + %(enqueued)s,
    backfill_everything = %(everything)s
WHERE collection_id = %(collection_id)s AND number = %(number)s
RETURNING backfill_enqueued

-- name: drop_outdated
-- Ends jobs whose document is gone, or of newer content that came with its vectors. Claims do it for all that is claimed.
WITH outdated AS MATERIALIZED (
    SELECT j.document_id, j.content_revision
    FROM jobs AS j
    WHERE j.collection_id = %(collection_id)s
        AND j.embedder_version = %(number)s
        AND NOT EXISTS (
            SELECT FROM documents AS d
            WHERE d.collection_id = j.collection_id
                AND d.document_id = j.document_id
                AND d.content_revision = j.content_revision
                AND d.deleted_at IS NULL
        )
)
DELETE FROM jobs AS j
USING outdated AS o
WHERE j.collection_id = %(collection_id)s
    AND j.document_id = o.document_id
    AND j.embedder_version = %(number)s
    -- Asked of the row as it is when it is deleted: whoever wrote the document meanwhile has made it another job.
    AND j.content_revision = o.content_revision

-- name: plan_full_scan
-- For the current transaction. The number of jobs changes too fast for the planner's statistics, and a nested loop over
-- many would never end.
SELECT set_config('enable_nestloop', 'off', true)

-- name: drop_orphans
-- Removes the vectors of documents that do not exist.
DELETE FROM {vectors} AS v
WHERE NOT EXISTS (
    SELECT FROM documents AS d
    WHERE d.collection_id = v.collection_id AND d.document_id = v.document_id AND d.deleted_at IS NULL
)

-- name: start_over
-- From the first document on. The samples of its rate belong to another run.
UPDATE embedder_versions
SET backfill_cursor = NULL, backfill_enqueued = 0, backfill_everything = false, backfill_notes = '[]'
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = 'backfilling'
RETURNING number

-- name: samples
-- The samples of the rate of a backfill that is not paused.
SELECT backfill_notes
FROM embedder_versions
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = 'backfilling' AND NOT paused

-- name: save_samples
-- Unless another process saved some meanwhile.
UPDATE embedder_versions
SET backfill_notes = %(samples)s
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = 'backfilling' AND NOT paused
    AND backfill_notes = %(before)s

-- name: progress
-- The progress of a version, in documents. Those that a backfill has not read yet, or that have a job, are not done.
-- Tombstones are subtracted, so that an index alone gives the number of all, however long their texts are.
SELECT v.state, v.paused, v.backfill_notes,
       known.total - gone.total AS total,
       known.reached - gone.reached - jobs.reached AS done,
       jobs.failed
FROM (
    SELECT collection_id, number, state, paused, backfill_notes, backfill_cursor,
           backfill_everything OR state NOT IN ('backfilling', 'failed') AS everything
    FROM embedder_versions
    WHERE collection_id = %(collection_id)s AND number = %(number)s
) AS v
CROSS JOIN LATERAL (
    SELECT count(*) AS total, count(*) FILTER (WHERE v.everything OR d.document_id <= v.backfill_cursor) AS reached
    FROM documents AS d
    WHERE d.collection_id = v.collection_id
) AS known
CROSS JOIN LATERAL (
    SELECT count(*) AS total, count(*) FILTER (WHERE v.everything OR d.document_id <= v.backfill_cursor) AS reached
    FROM documents AS d
    WHERE d.collection_id = v.collection_id AND d.deleted_at IS NOT NULL
) AS gone
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE v.everything OR j.document_id <= v.backfill_cursor) AS reached,
           count(*) FILTER (WHERE j.set_aside_at IS NOT NULL) AS failed
    FROM jobs AS j
    WHERE j.collection_id = v.collection_id AND j.embedder_version = v.number
) AS jobs

-- name: build
-- The index build that runs on a table: the share of the table that is indexed, and its seconds by the server's clock.
SELECT CASE
           WHEN p.phase IN ('initializing', 'waiting for writers before build') THEN 0
           WHEN p.phase NOT LIKE 'building index%%' THEN 1
           ELSE COALESCE(p.blocks_done::float8 / NULLIF(p.blocks_total, 0), 0)
       END::float8,
       EXTRACT(epoch FROM clock_timestamp() - a.query_start)::float8
FROM pg_stat_progress_create_index AS p
JOIN pg_stat_activity AS a ON a.pid = p.pid
WHERE p.datname = current_database() AND p.relid = to_regclass(%(table)s)

-- name: completeness
-- Documents against first chunks in one snapshot; what has a job is on neither side, for it is not done yet.
WITH version AS MATERIALIZED (
    SELECT document_id, priority, set_aside_at
    FROM jobs
    WHERE collection_id = %(collection_id)s AND embedder_version = %(number)s
), active AS MATERIALIZED (
    SELECT j.document_id, j.set_aside_at
    FROM jobs AS j
    JOIN collections AS c ON c.id = j.collection_id AND c.active_version = j.embedder_version
    WHERE j.collection_id = %(collection_id)s
), wanted AS (
    SELECT count(*) AS documents, COALESCE(sum(hashtextextended(d.document_id, d.content_revision)), 0) AS checksum
    FROM documents AS d
    WHERE d.collection_id = %(collection_id)s
        AND d.deleted_at IS NULL
        AND NOT EXISTS (SELECT FROM version AS j WHERE j.document_id = d.document_id)
), stored AS (
    SELECT count(*) AS documents, COALESCE(sum(hashtextextended(s.document_id, s.content_revision)), 0) AS checksum
    FROM {vectors} AS s
    WHERE s.chunk = 0 AND NOT EXISTS (SELECT FROM version AS j WHERE j.document_id = s.document_id)
), waiting AS (
    SELECT count(*) FILTER (WHERE j.priority >= 2 AND j.set_aside_at IS NULL) AS waiting,
           count(*) FILTER (WHERE j.set_aside_at IS NOT NULL AND a.set_aside_at IS NULL) AS failed,
           count(*) FILTER (WHERE j.priority < 2 AND j.set_aside_at IS NULL AND a.document_id IS NULL) AS behind
    FROM version AS j
    LEFT JOIN active AS a ON a.document_id = j.document_id
)
SELECT wanted.documents, stored.documents AS stored, wanted.checksum::text AS documents_checksum,
       stored.checksum::text AS stored_checksum, waiting.waiting, waiting.failed, waiting.behind
FROM wanted, stored, waiting
