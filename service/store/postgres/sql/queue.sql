-- name: overwrite
-- Part of statements that enqueue: what was known of an earlier job (lease, attempts) goes, and that is the fence.
ON CONFLICT (collection_id, document_id, embedder_version) DO UPDATE SET
    content_revision = excluded.content_revision,
    priority = excluded.priority,
    enqueued_at = excluded.enqueued_at,
    available_at = excluded.available_at,
    lease = NULL,
    worker = NULL,
    lost_leases = 0,
    attempts = 0,
    reason = NULL,
    set_aside_at = NULL

-- name: enqueue
-- A job for every written version, except the one whose vector a document brings.
INSERT INTO jobs (collection_id, document_id, embedder_version, content_revision, priority, enqueued_at, available_at)
SELECT v.collection_id, n.document_id, v.number, n.content_revision,
       CASE WHEN v.spec ->> 'model' = 'external' THEN 3 WHEN v.number = c.active_version THEN 0 ELSE 1 END,
       %(now)s::timestamptz, %(now)s::timestamptz
FROM unnest(%(ids)s::text[], %(content_revisions)s::bigint[], %(brought)s::integer[])
    AS n (document_id, content_revision, brought)
CROSS JOIN embedder_versions AS v
JOIN collections AS c ON c.id = v.collection_id
WHERE v.collection_id = %(collection_id)s
    AND v.state NOT IN ('retired', 'failed')
    AND v.number IS DISTINCT FROM n.brought
ORDER BY n.document_id COLLATE "C", v.number
{overwrite}

-- name: delete_jobs
-- Removes the jobs of deleted documents; waits for a worker that is just storing one of them.
WITH held AS (
    SELECT collection_id, document_id, embedder_version
    FROM jobs
    WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[])
    ORDER BY document_id, embedder_version
    FOR UPDATE
)
DELETE FROM jobs AS j
USING held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version

-- name: claim
-- Leases the first available jobs of one lane and the named spaces, of each collection at most its share.
-- A lease that ran out on another worker counts as lost. Who claims its own job again is alive: the database was away.
WITH available AS (
    SELECT j.collection_id, j.document_id, j.embedder_version
    FROM unnest(%(collections)s::bigint[]) AS n (collection_id)
    CROSS JOIN LATERAL (
        SELECT collection_id, document_id, embedder_version, enqueued_at
        FROM jobs
        WHERE collection_id = n.collection_id
            AND set_aside_at IS NULL
            AND priority BETWEEN %(first)s AND %(last)s
            AND available_at <= %(now)s
            -- Nearly every job is of a named space. Of this form of the question the planner believes it too.
            AND array_position(%(spaces)s::text[], collection_id || '/' || embedder_version) IS NOT NULL
        ORDER BY priority, enqueued_at
        LIMIT %(share)s
        FOR UPDATE SKIP LOCKED
    ) AS j
    ORDER BY j.enqueued_at
    LIMIT %(limit)s
), leased AS (
    UPDATE jobs AS j
    SET lease = %(lease)s,
        worker = %(worker)s,
        available_at = %(until)s,
        lost_leases = j.lost_leases + CASE WHEN j.worker <> %(worker)s THEN 1 ELSE 0 END
    FROM available AS a
    WHERE j.collection_id = a.collection_id
        AND j.document_id = a.document_id
        AND j.embedder_version = a.embedder_version
    RETURNING j.collection_id, j.document_id, j.embedder_version, j.content_revision, j.attempts, j.lost_leases,
        j.priority, j.enqueued_at
)
SELECT collection_id, document_id, embedder_version, content_revision, attempts, lost_leases
FROM leased
ORDER BY priority, enqueued_at, document_id

-- name: documents
-- The living documents of claimed jobs.
SELECT d.collection_id, d.document_id, d.title, d.text, coalesce(d.sent_metadata, d.metadata) AS metadata, d.revision,
       d.content_revision, d.created_at, d.updated_at, d.image_digest, i.preview
FROM unnest(%(collections)s::bigint[], %(ids)s::text[]) AS n (collection_id, document_id)
JOIN documents AS d ON d.collection_id = n.collection_id AND d.document_id = n.document_id
LEFT JOIN images AS i ON i.collection_id = d.collection_id AND i.document_id = d.document_id
WHERE d.deleted_at IS NULL

-- name: held
-- Part of the statements below: those of the named jobs that are still leased to us for the same content, locked.
held AS (
    SELECT j.collection_id, j.document_id, j.embedder_version
    FROM unnest(
        %(collections)s::bigint[], %(ids)s::text[], %(versions)s::integer[], %(content_revisions)s::bigint[],
        %(leases)s::uuid[]
    ) AS n (collection_id, document_id, embedder_version, content_revision, lease)
    JOIN jobs AS j
        ON j.collection_id = n.collection_id
        AND j.document_id = n.document_id
        AND j.embedder_version = n.embedder_version
        AND j.content_revision = n.content_revision
        AND j.lease = n.lease
    ORDER BY j.collection_id, j.document_id, j.embedder_version
    FOR UPDATE OF j
)

-- name: finish
-- Ends jobs that are still ours. What is answered may be stored in the same transaction.
WITH {held}
DELETE FROM jobs AS j
USING held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version
RETURNING j.document_id, j.lease

-- name: extend
-- Moves the end of leases that are still ours.
WITH {held}
UPDATE jobs AS j
SET available_at = %(until)s
FROM held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version

-- name: release
-- Gives leases back, to be claimed by anyone from a time on.
WITH {held}
UPDATE jobs AS j
SET lease = NULL, worker = NULL, available_at = %(available)s
FROM held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version

-- name: record_failure
-- Counts a failed attempt. The lease stays unless that was the last one; its end no longer counts as lost (no worker).
WITH {held}
UPDATE jobs AS j
SET attempts = j.attempts + 1,
    reason = %(reason)s,
    available_at = %(available)s,
    worker = NULL,
    lease = CASE WHEN j.attempts + 1 >= %(max_attempts)s THEN NULL ELSE j.lease END,
    set_aside_at = CASE WHEN j.attempts + 1 >= %(max_attempts)s THEN %(now)s::timestamptz END
FROM held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version
RETURNING j.document_id, j.set_aside_at IS NOT NULL AS set_aside

-- name: drop_outdated
-- Ends jobs that are still ours although their documents are gone, or of newer content that has had its own job.
WITH {held}
DELETE FROM jobs AS j
USING held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version
    AND NOT EXISTS (
        SELECT FROM documents AS d
        WHERE d.collection_id = j.collection_id
            AND d.document_id = j.document_id
            AND d.content_revision = j.content_revision
            AND d.deleted_at IS NULL
    )

-- name: status
-- What waits in one version, what was set aside, and since when the oldest waits.
SELECT count(*) FILTER (WHERE set_aside_at IS NULL) AS pending,
       count(*) FILTER (WHERE set_aside_at IS NOT NULL) AS failed,
       min(enqueued_at) FILTER (WHERE set_aside_at IS NULL) AS oldest
FROM jobs
WHERE collection_id = %(collection_id)s AND embedder_version = %(version)s

-- name: failed
-- Documents that were set aside, by id; of several versions the newest.
SELECT DISTINCT ON (document_id) document_id AS id, embedder_version AS version, attempts, reason,
       set_aside_at AS failed_at
FROM jobs
WHERE collection_id = %(collection_id)s AND set_aside_at IS NOT NULL AND document_id > %(after)s
ORDER BY document_id, embedder_version DESC
LIMIT %(limit)s

-- name: retry
-- Puts everything that was set aside back.
UPDATE jobs
SET set_aside_at = NULL, attempts = 0, lost_leases = 0, reason = NULL, lease = NULL, worker = NULL,
    available_at = %(now)s
WHERE collection_id = %(collection_id)s AND set_aside_at IS NOT NULL

-- name: dead_lettered
-- Those of the named documents that one version could not encode.
SELECT document_id
FROM jobs
WHERE collection_id = %(collection_id)s
    AND document_id = ANY (%(ids)s::text[])
    AND embedder_version = %(version)s
    AND set_aside_at IS NOT NULL

-- name: unfinished
-- Those of the named documents that still wait for one version.
SELECT document_id
FROM jobs
WHERE collection_id = %(collection_id)s
    AND document_id = ANY (%(ids)s::text[])
    AND embedder_version = %(version)s
    AND set_aside_at IS NULL
