-- name: first_in_line
-- Have writers who come from now on wait: without it those who overlap would never leave a moment to `alone`.
SELECT pg_advisory_xact_lock(hashtextextended('azimuth writers ' || %(id)s::bigint, 0))

-- name: alone
-- Lock a collection against writers, who hold its row FOR KEY SHARE; no row where it is gone.
SELECT id FROM collections WHERE id = %(id)s FOR UPDATE

-- name: present
-- Keep a collection from being deleted; no row where it is gone.
SELECT id FROM collections WHERE id = %(id)s FOR KEY SHARE

-- name: no_statement_timeout
-- For the present transaction: deleting takes as long as there is to delete.
SELECT set_config('statement_timeout', '0', true)

-- name: cancel_builds
-- End index builds on these tables: they would keep a DROP TABLE waiting for as long as they run.
SELECT pg_cancel_backend(pid)
FROM pg_stat_progress_create_index
WHERE datname = current_database() AND relid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)
