-- name: insert
-- No row where the name is taken; waits for another that is just taking it.
INSERT INTO collections (name, settings, active_version, created_at)
VALUES (%(name)s, %(settings)s, %(active_version)s, %(now)s)
ON CONFLICT (name) DO NOTHING
RETURNING id, name, settings, active_version, created_at

-- name: update
-- Replace the settings, where they still are what the new ones were made from.
UPDATE collections SET settings = %(settings)s WHERE id = %(id)s AND settings = %(replaced)s
RETURNING id, name, settings, active_version, created_at

-- name: by_name
-- One collection, by the name that clients use.
SELECT id, name, settings, active_version, created_at FROM collections WHERE name = %(name)s

-- name: all
-- Every collection, in the order of names.
SELECT id, name, settings, active_version, created_at FROM collections ORDER BY name

-- name: lock
-- Keep writers out of a collection that is about to go: they hold its row FOR KEY SHARE.
SELECT id FROM collections WHERE id = %(id)s FOR UPDATE

-- name: no_statement_timeout
-- For the present transaction: deleting takes as long as there is to delete.
SELECT set_config('statement_timeout', '0', true)

-- name: version_numbers
-- The versions of a collection whose tables go with it.
SELECT number FROM embedder_versions WHERE collection_id = %(id)s ORDER BY number

-- name: cancel_builds
-- End index builds on these tables: they would keep a DROP TABLE waiting for as long as they run.
SELECT pg_cancel_backend(pid)
FROM pg_stat_progress_create_index
WHERE datname = current_database() AND relid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)

-- name: delete_documents
-- All of a collection, tombstones too.
DELETE FROM documents WHERE collection_id = %(id)s

-- name: delete_changes
-- The whole feed of a collection.
DELETE FROM changes WHERE collection_id = %(id)s

-- name: delete_jobs
-- Whatever waits, is leased or was set aside.
DELETE FROM jobs WHERE collection_id = %(id)s

-- name: delete
-- The collection; its versions go by their foreign key.
DELETE FROM collections WHERE id = %(id)s

-- name: counts
-- Documents that are there, that wait for an embedder, and that were set aside.
-- Tombstones are subtracted, so that an index alone gives the number of all, however long their texts are.
SELECT
    (SELECT count(*) FROM documents WHERE collection_id = %(id)s)
        - (SELECT count(*) FROM documents WHERE collection_id = %(id)s AND deleted_at IS NOT NULL),
    (SELECT count(DISTINCT document_id) FROM jobs WHERE collection_id = %(id)s AND set_aside_at IS NULL),
    (SELECT count(DISTINCT document_id) FROM jobs WHERE collection_id = %(id)s AND set_aside_at IS NOT NULL)
