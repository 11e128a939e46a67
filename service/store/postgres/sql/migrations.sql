-- name: create_table
-- What ran, when, and the hash of its file.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL
)

-- name: exists
-- False on a database that was never migrated.
SELECT to_regclass('schema_migrations') IS NOT NULL

-- name: applied
-- Everything that ran, oldest first.
SELECT number, name, sha256 FROM schema_migrations ORDER BY number

-- name: record
-- Remember that a migration ran.
INSERT INTO schema_migrations (number, name, sha256, applied_at)
VALUES (%(number)s, %(name)s, %(sha256)s, clock_timestamp())

-- name: lock_timeout
-- Of this session, so that nobody queues behind a migration for long.
SELECT set_config('lock_timeout', %(milliseconds)s, false)

-- name: try_lock
-- Of this transaction: true for the one process that migrates.
SELECT pg_try_advisory_xact_lock(%(key)s)

-- name: stay_idle
-- The transaction may stay open without a time limit. It ends the last query, too, of which the snapshot would be kept.
SET LOCAL idle_in_transaction_session_timeout = 0
