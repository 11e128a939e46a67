-- name: try_lock
-- A lock of this session; false where another session holds it.
SELECT pg_try_advisory_lock(hashtextextended('azimuth driving ' || %(key)s, 0))

-- name: unlock
-- Releases the lock of this session.
SELECT pg_advisory_unlock(hashtextextended('azimuth driving ' || %(key)s, 0))
