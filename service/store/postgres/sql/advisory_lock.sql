-- name: try_lock
-- A lock of this session; false where another session holds it.
SELECT pg_try_advisory_lock(hashtextextended('azimuth driving ' || %(key)s, 0))

-- name: unlock
-- Releases the lock of this session.
SELECT pg_advisory_unlock(hashtextextended('azimuth driving ' || %(key)s, 0))

-- name: try_lock_in_transaction
-- A lock of this transaction; false where another one holds it.
SELECT pg_try_advisory_xact_lock(hashtextextended('azimuth driving ' || %(key)s, 0))

-- name: stay_idle
-- The transaction may stay open without a time limit. It ends the last query, too, of which the snapshot would be kept.
SET LOCAL idle_in_transaction_session_timeout = 0
