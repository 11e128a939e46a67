-- name: all
-- Every key; the newest secret of each name first.
SELECT name, digest, role, collections, filter, rate, created_at, expires_at, last_used_at, requests
FROM api_keys
ORDER BY name, created_at DESC

-- name: lock
-- One change at a time; readers go on, and so do those who record the use.
SELECT pg_advisory_xact_lock(hashtextextended('azimuth api keys', 0))

-- name: living
-- The newest living secret of a name.
SELECT digest
FROM api_keys
WHERE name = %(name)s AND (expires_at IS NULL OR expires_at > %(now)s)
ORDER BY created_at DESC
LIMIT 1

-- name: insert
-- A new key.
INSERT INTO api_keys (digest, name, role, collections, filter, rate, created_at, expires_at)
VALUES (%(digest)s, %(name)s, %(role)s, %(collections)s, %(filter)s, %(rate)s, %(created_at)s, %(expires_at)s)

-- name: renew
-- The same key with another secret.
INSERT INTO api_keys (digest, name, role, collections, filter, rate, created_at, expires_at)
SELECT %(successor)s, name, role, collections, filter, rate, %(now)s, %(now)s + (expires_at - created_at)
FROM api_keys
WHERE digest = %(present)s

-- name: end
-- Ends the living secrets of a name but the new one.
UPDATE api_keys SET expires_at = least(expires_at, %(end)s::timestamptz)
WHERE name = %(name)s AND digest IS DISTINCT FROM %(successor)s

-- name: record_use
-- Adds requests of one process.
UPDATE api_keys AS k
SET requests = k.requests + u.requests, last_used_at = greatest(k.last_used_at, %(now)s::timestamptz)
FROM unnest(%(digests)s::bytea[], %(requests)s::bigint[]) AS u (digest, requests)
WHERE k.digest = u.digest

-- name: record_change
-- Who changed which key.
INSERT INTO api_key_changes (at, actor, action, name, details)
VALUES (%(now)s, %(actor)s, %(action)s, %(name)s, %(details)s)

-- name: changes
-- The latest changes.
SELECT at, actor, action, name, details FROM api_key_changes ORDER BY number DESC LIMIT 1000
