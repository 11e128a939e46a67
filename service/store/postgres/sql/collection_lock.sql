-- name: queue_writers
-- Makes later writers wait: otherwise overlapping writers could hold the row for ever.
SELECT pg_advisory_xact_lock(hashtextextended('azimuth writers ' || %(id)s::bigint, 0))

-- name: for_update
-- Locks a collection against writers, who hold its row FOR KEY SHARE; no row where it is gone.
SELECT id FROM collections WHERE id = %(id)s FOR UPDATE

-- name: for_key_share
-- Keeps a collection from being deleted; no row where it is gone.
SELECT id FROM collections WHERE id = %(id)s FOR KEY SHARE

-- name: cancel_builds
-- Cancels index builds on these tables: a DROP TABLE would wait for their end.
SELECT pg_cancel_backend(pid)
FROM pg_stat_progress_create_index
WHERE datname = current_database() AND relid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)
