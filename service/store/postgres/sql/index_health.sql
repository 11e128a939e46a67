-- name: health
-- The state of the table and the index of a version. `guarded`: its constraints admit no vector that an index cannot hold.
SELECT
    COALESCE(s.n_dead_tup, 0)::int8 AS dead_rows,
    (COALESCE(s.n_tup_ins, 0) + COALESCE(s.n_tup_upd, 0))::int8 AS written,
    pg_table_size(relation.oid)::int8 AS table_bytes,
    (SELECT setting::int8 * current_setting('block_size')::int8 FROM pg_settings WHERE name = 'effective_cache_size')
        AS cache_bytes,
    COALESCE((
        SELECT max(extract(epoch FROM clock_timestamp() - a.xact_start))
        FROM pg_stat_activity AS a
        WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.backend_xmin IS NOT NULL
    ), 0)::float8 AS oldest_seconds,
    EXISTS (
        SELECT FROM pg_attribute AS a
        JOIN pg_constraint AS c ON c.conrelid = a.attrelid AND c.conkey = ARRAY[a.attnum]
        WHERE a.attrelid = relation.oid AND a.attname = 'embedding' AND a.attnotnull
            AND c.contype = 'c' AND c.convalidated AND pg_get_constraintdef(c.oid) LIKE '%%norm(embedding)%%'
    ) AS guarded,
    EXISTS (
        SELECT FROM pg_stat_progress_create_index AS p
        WHERE p.datname = current_database() AND p.relid = relation.oid
    ) AS building,
    i.indisvalid AND i.indisready AS valid,
    pg_relation_size(i.indexrelid)::int8 AS index_bytes,
    pg_relation_filenode(i.indexrelid)::int8 AS build
FROM pg_class AS relation
LEFT JOIN pg_stat_user_tables AS s ON s.relid = relation.oid
LEFT JOIN pg_index AS i ON i.indexrelid = to_regclass(%(index)s)
WHERE relation.oid = to_regclass(%(table)s)

-- name: unindexed
-- Rows that no index can hold; counted only where the table does not reject them.
SELECT count(*) FROM {vectors} WHERE embedding IS NULL OR {length}(embedding) = 0

-- name: leftovers
-- Invalid indexes that an interrupted rebuild left.
SELECT c.relname::text
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%(table)s) AND NOT i.indisvalid AND c.relname <> %(index)s
