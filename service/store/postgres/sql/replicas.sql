-- name: written
-- Where the log of the primary ends, in bytes.
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn

-- name: replayed
-- How far a replica is in that log, and the transaction below which it has seen all end. No row of one that follows
-- nobody: it was promoted, or is a former primary, and may know less.
SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn, pg_snapshot_xmin(pg_current_snapshot())::text::bigint
WHERE pg_is_in_recovery()
