-- name: insert
-- One entry; the database numbers it.
INSERT INTO audit (collection_id, at, actor, action, version, before, note, details)
VALUES (%(collection_id)s, %(at)s, %(actor)s, %(action)s, %(version)s, %(before)s, %(note)s, %(details)s)

-- name: page
-- The newest entries below a number.
SELECT number, at, actor, action, version, before, note, details
FROM audit
WHERE collection_id = %(collection_id)s AND number < COALESCE(%(before)s::bigint, 9223372036854775807)
ORDER BY number DESC
LIMIT %(limit)s
