-- name: session
-- Limits of a pooled connection. JIT compiles for longer than any of our queries runs.
SELECT set_config('statement_timeout', %(statement_timeout)s, false),
       set_config('lock_timeout', %(lock_timeout)s, false),
       set_config('idle_in_transaction_session_timeout', %(idle_in_transaction_timeout)s, false),
       set_config('timezone', 'UTC', false),
       set_config('jit', 'off', false)

-- name: no_parallel_workers
-- Statements of this connection use no parallel workers.
SELECT set_config('max_parallel_workers_per_gather', '0', false)

-- name: vector_types
-- The types of pgvector as this database numbers them; no rows before the extension is created.
SELECT typname::text, oid::int8, typarray::int8
FROM pg_type
WHERE oid IN (to_regtype('vector'), to_regtype('halfvec'))

-- name: allow_writes
-- In a transaction, before anything else: it may write although the default of the server is reading only.
SET TRANSACTION READ WRITE
