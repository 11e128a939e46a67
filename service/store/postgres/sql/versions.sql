-- name: of
-- All versions of a collection, oldest first.
SELECT {columns}
FROM embedder_versions
WHERE collection_id = %(collection_id)s
ORDER BY number

-- name: written
-- The versions that live writes go to.
SELECT {columns}
FROM embedder_versions
WHERE state NOT IN ('retired', 'failed')
ORDER BY collection_id, number

-- name: in_states
-- The versions that are in one of some states.
SELECT {columns}
FROM embedder_versions
WHERE state = ANY (%(states)s::text[])
ORDER BY collection_id, number
