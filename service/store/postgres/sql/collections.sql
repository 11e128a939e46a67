-- name: lock
-- Locks a collection against other changes of its settings, but not against writers; no row where it is gone.
SELECT id, name, settings, active_version, previous_version, created_at
FROM collections
WHERE id = %(id)s
FOR NO KEY UPDATE

-- name: update
-- Replace the settings of a collection that is locked.
UPDATE collections SET settings = %(settings)s WHERE id = %(id)s
RETURNING id, name, settings, active_version, previous_version, created_at

-- name: by_name
-- One collection, by the name that clients use: its own, or else an alias.
SELECT id, name, settings, active_version, previous_version, created_at
FROM collections
WHERE name = %(name)s OR id = (SELECT collection_id FROM aliases WHERE alias = %(name)s)
ORDER BY name = %(name)s DESC
LIMIT 1

-- name: rename
-- Another name; no row where the collection is gone, or the name is taken by an alias.
UPDATE collections SET name = %(name)s
WHERE id = %(id)s AND NOT EXISTS (SELECT FROM aliases WHERE alias = %(name)s)
RETURNING id, name, settings, active_version, previous_version, created_at

-- name: aliases
-- Every alias with the name of its collection.
SELECT a.alias, c.name FROM aliases AS a JOIN collections AS c ON c.id = a.collection_id ORDER BY a.alias

-- name: set_alias
-- No row where the collection is gone, or the name is that of a collection.
INSERT INTO aliases AS a (alias, collection_id)
SELECT %(alias)s, id FROM collections
WHERE id = %(id)s AND NOT EXISTS (SELECT FROM collections WHERE name = %(alias)s)
ON CONFLICT (alias) DO UPDATE SET collection_id = excluded.collection_id
RETURNING collection_id

-- name: delete_alias
-- No row where there is none.
DELETE FROM aliases WHERE alias = %(alias)s RETURNING collection_id

-- name: get
-- One collection.
SELECT id, name, settings, active_version, previous_version, created_at FROM collections WHERE id = %(id)s

-- name: all
-- Every collection, in the order of names.
SELECT id, name, settings, active_version, previous_version, created_at FROM collections ORDER BY name

-- name: version_numbers
-- The versions of a collection whose tables go with it.
SELECT number FROM embedder_versions WHERE collection_id = %(id)s ORDER BY number

-- name: delete_documents
-- All of a collection, tombstones too.
DELETE FROM documents WHERE collection_id = %(id)s

-- name: delete_images
-- All of a collection.
DELETE FROM images WHERE collection_id = %(id)s

-- name: delete_changes
-- The whole feed of a collection.
DELETE FROM changes WHERE collection_id = %(id)s

-- name: delete_index_marks
-- Those of its lexical indexes.
DELETE FROM lexical_indexes WHERE collection_id = %(id)s

-- name: delete_jobs
-- Whatever waits, is leased or was set aside.
DELETE FROM jobs WHERE collection_id = %(id)s

-- name: delete
-- The collection; its versions go by their foreign key.
DELETE FROM collections WHERE id = %(id)s

-- name: counts
-- Documents that are there, that wait for the active version, and that were set aside there.
-- Tombstones are subtracted, so that an index alone gives the number of all, however long their texts are.
SELECT
    (SELECT count(*) FROM documents WHERE collection_id = %(id)s)
        - (SELECT count(*) FROM documents WHERE collection_id = %(id)s AND deleted_at IS NOT NULL),
    (SELECT count(*) FROM jobs
     WHERE collection_id = %(id)s AND embedder_version = %(version)s AND set_aside_at IS NULL),
    (SELECT count(*) FROM jobs
     WHERE collection_id = %(id)s AND embedder_version = %(version)s AND set_aside_at IS NOT NULL)

-- name: counts_within
-- The same of the documents that pass.
SELECT count(*), count(*) FILTER (WHERE j.document_id IS NOT NULL AND j.set_aside_at IS NULL), count(j.set_aside_at)
FROM documents AS d
LEFT JOIN jobs AS j
    ON j.collection_id = d.collection_id AND j.document_id = d.document_id AND j.embedder_version = %(version)s
WHERE d.collection_id = %(id)s AND d.deleted_at IS NULL AND {where}
