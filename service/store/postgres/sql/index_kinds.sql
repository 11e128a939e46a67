-- name: present
-- Those of the named kinds of index that can be built in this database.
SELECT amname::text FROM pg_am WHERE amname = ANY (%(kinds)s::text[]) ORDER BY array_position(%(kinds)s::text[], amname::text)

-- name: available
-- Whether the server has an extension that CREATE EXTENSION would install.
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = %(extension)s)

-- name: scan_hnsw
-- For this transaction: the extent of the scan, and no plan that sorts rows instead of taking them from the index.
SELECT set_config('hnsw.ef_search', %(ef_search)s::text, true),
       set_config('hnsw.iterative_scan', %(iterative_scan)s, true),
       set_config('hnsw.max_scan_tuples', %(max_scan_tuples)s, true),
       set_config('hnsw.scan_mem_multiplier', %(scan_mem_multiplier)s, true),
       set_config('enable_sort', 'off', true)

-- name: scan_ivfflat
-- The same. The index says how many lists it was built with.
SELECT set_config('ivfflat.probes', ceil(lists * power(%(ef_search)s / 1000.0, 2))::text, true),
       set_config('ivfflat.iterative_scan', %(iterative_scan)s, true),
       set_config('enable_sort', 'off', true)
FROM (
    SELECT substring(array_to_string(reloptions, ' ') FROM 'lists=([0-9]+)')::integer AS lists
    FROM pg_class WHERE oid = to_regclass(%(index)s)
) AS built

-- name: scan_vchordrq
-- The same. A scan that has looked into its lists does not go on.
SELECT set_config('vchordrq.probes', ceil(lists * power(%(ef_search)s / 1000.0, 2))::text, true),
       set_config('enable_sort', 'off', true)
FROM (
    SELECT substring(array_to_string(reloptions, ' ') FROM 'lists = \[([0-9]+)\]')::integer AS lists
    FROM pg_class WHERE oid = to_regclass(%(index)s)
) AS built

-- name: scan_diskann
-- The same. A scan goes on by itself for as long as rows are wanted.
SELECT set_config('diskann.query_search_list_size', %(ef_search)s::text, true),
       set_config('diskann.query_rescore', %(ef_search)s::text, true),
       set_config('enable_sort', 'off', true)
