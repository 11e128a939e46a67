-- name: try_take
-- Of this session: true for the one process that drives this version.
SELECT pg_try_advisory_lock(hashtextextended('azimuth driving ' || %(table)s, 0))

-- name: let_go
-- Of this session: somebody else may drive it.
SELECT pg_advisory_unlock(hashtextextended('azimuth driving ' || %(table)s, 0))
