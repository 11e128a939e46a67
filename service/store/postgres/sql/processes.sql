-- name: record_heartbeat
-- A heartbeat; forgets those that have been silent for long.
WITH forgotten AS (
    DELETE FROM processes WHERE seen_at < %(forgotten)s AND id <> %(id)s
)
INSERT INTO processes (id, host, seen_at, proven)
VALUES (%(id)s, %(host)s, %(now)s, %(proven)s)
ON CONFLICT (id) DO UPDATE SET host = excluded.host, seen_at = excluded.seen_at, proven = excluded.proven

-- name: seen_since
-- Those seen since a moment.
SELECT id, host, seen_at, proven FROM processes WHERE seen_at >= %(moment)s ORDER BY id

-- name: remove
-- One that stopped in order.
DELETE FROM processes WHERE id = %(id)s
