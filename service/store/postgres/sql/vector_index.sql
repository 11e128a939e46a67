-- name: space_status
-- The size of a version's table and the state of its index. Rows are estimated as the planner does it: the density when it was last
-- analysed, times the pages it has now; -1 before that. `firsts` is the share of rows that are a document's first chunk.
SELECT
    CASE WHEN relation.reltuples < 0 THEN -1
         WHEN relation.relpages = 0 THEN 0
         ELSE relation.reltuples / relation.relpages
              * (pg_relation_size(relation.oid) / current_setting('block_size')::bigint)
    END::float8 AS estimated_rows,
    COALESCE(
        (SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass(%(index)s)), false
    ) AS indexed,
    (SELECT most_common_freqs[array_position(most_common_vals::text::integer[], 0)]
     FROM pg_stats
     WHERE schemaname = relation.relnamespace::regnamespace::text AND tablename = relation.relname
       AND attname = 'chunk')::float8 AS firsts,
    (SELECT COALESCE(jsonb_object_agg(band, ef_search), '{}') FROM search_efforts
     WHERE collection_id = %(collection_id)s AND embedder_version = %(number)s) AS efforts
FROM pg_class AS relation
WHERE relation.oid = to_regclass(%(table)s)

-- name: memory
-- In kB: what the server grants maintenance, and what it assumes to have for caching.
SELECT
    (SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'),
    (SELECT setting::bigint FROM pg_settings WHERE name = 'effective_cache_size')
        * current_setting('block_size')::bigint / 1024

-- name: build_session
-- For a connection that builds an index: no time limit, and memory for the whole graph where the server has it.
SELECT set_config('statement_timeout', '0', false),
       set_config('lock_timeout', '0', false),
       set_config('maintenance_work_mem', %(memory)s, false)

-- name: no_parallel_build
-- Builds in one process: parallel workers need more shared memory than some servers have.
SELECT set_config('max_parallel_maintenance_workers', '0', false)
