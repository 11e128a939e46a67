-- name: columns
-- Part of many statements: the columns of a version, in the order of the fields of EmbedderVersion.
collection_id, number, state, spec, chunking, identity, fingerprint, canary, index_settings, paused, reason, evidence,
calibration, created_at

-- name: lock_collection
-- Locks a collection against other promotions and changes of its settings, but not against writers.
SELECT active_version FROM collections WHERE id = %(id)s FOR NO KEY UPDATE

-- name: next_number
-- Numbers are never used again; and how many versions are written.
SELECT COALESCE(max(number), 0) + 1, count(*) FILTER (WHERE state NOT IN ('retired', 'failed'))
FROM embedder_versions
WHERE collection_id = %(collection_id)s

-- name: insert
-- A new version.
INSERT INTO embedder_versions
    (collection_id, number, state, spec, chunking, identity, fingerprint, canary, index_settings, created_at)
VALUES
    (%(collection_id)s, %(number)s, %(state)s, %(spec)s, %(chunking)s, %(identity)s, %(fingerprint)s, %(canary)s,
     %(index)s, %(now)s)
RETURNING {columns}

-- name: select
-- One version.
SELECT {columns} FROM embedder_versions WHERE collection_id = %(collection_id)s AND number = %(number)s

-- name: move
-- To another state, from the expected one. Evidence stays where there is no newer.
UPDATE embedder_versions
SET state = %(to)s, reason = %(reason)s, evidence = COALESCE(%(evidence)s::jsonb, evidence), paused = false
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = %(from)s
RETURNING {columns}

-- name: save_calibration
-- No row where another process has calibrated the version since, or it is not written any more.
UPDATE embedder_versions
SET calibration = %(calibration)s
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state NOT IN ('retired', 'failed')
    AND calibration->>'learnt_at' IS NOT DISTINCT FROM %(before)s::text

-- name: restart_backfill
-- The backfill reads every document again.
UPDATE embedder_versions
SET backfill_cursor = NULL, backfill_enqueued = 0, backfill_everything = false, backfill_notes = '[]'
WHERE collection_id = %(collection_id)s AND number = %(number)s

-- name: pause
-- No row where it is so already, or in another state. Paused time does not count for the rate, so samples begin anew.
UPDATE embedder_versions
SET paused = %(paused)s, backfill_notes = '[]'
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = %(state)s AND paused <> %(paused)s
RETURNING {columns}

-- name: demote
-- The version that was active stays complete.
UPDATE embedder_versions SET state = 'ready' WHERE collection_id = %(id)s AND number = %(from)s AND state = 'active'

-- name: activate
-- No row where it is not ready any more.
UPDATE embedder_versions SET state = 'active' WHERE collection_id = %(id)s AND number = %(to)s AND state = 'ready'
RETURNING number

-- name: switch
-- From the commit on every search reads the new version, and settings name its embedder and chunking.
UPDATE collections AS c
SET active_version = v.number,
    previous_version = c.active_version,
    settings = c.settings || jsonb_build_object('embedder', v.spec, 'chunking', v.chunking)
FROM embedder_versions AS v
WHERE c.id = %(id)s AND v.collection_id = c.id AND v.number = %(to)s
RETURNING c.id, c.name, c.settings, c.active_version, c.previous_version, c.created_at

-- name: reorder
-- Live writes of the active version come first. A locked job is skipped: it is only an order.
WITH free AS (
    SELECT j.collection_id, j.document_id, j.embedder_version
    FROM jobs AS j
    JOIN collections AS c ON c.id = j.collection_id AND c.active_version = %(to)s
    WHERE j.collection_id = %(id)s
        AND ((j.embedder_version = %(from)s AND j.priority = 0) OR (j.embedder_version = %(to)s AND j.priority = 1))
    LIMIT %(limit)s
    FOR UPDATE OF j SKIP LOCKED
)
UPDATE jobs AS j
SET priority = 1 - j.priority
FROM free AS f
WHERE j.collection_id = f.collection_id
    AND j.document_id = f.document_id
    AND j.embedder_version = f.embedder_version

-- name: retire
-- The row stays: its number is never used again.
UPDATE embedder_versions
SET state = 'retired', paused = false
WHERE collection_id = %(collection_id)s AND number = %(number)s
RETURNING {columns}

-- name: forget_previous
-- No roll back leads to it any more.
UPDATE collections SET previous_version = NULL WHERE id = %(collection_id)s AND previous_version = %(number)s

-- name: delete_jobs
-- All jobs of one version, locked in the usual order.
WITH held AS (
    SELECT collection_id, document_id, embedder_version
    FROM jobs
    WHERE collection_id = %(collection_id)s AND embedder_version = %(number)s
    ORDER BY document_id
    FOR UPDATE
)
DELETE FROM jobs AS j
USING held AS h
WHERE j.collection_id = h.collection_id
    AND j.document_id = h.document_id
    AND j.embedder_version = h.embedder_version

-- name: set_lock_timeout
-- For the rest of this transaction: so many milliseconds for each lock.
SELECT set_config('lock_timeout', %(lock_timeout)s, true)
