-- name: ask
-- Ends those of the named sessions of ours that the server is not working for; no rows where it works for all.
SELECT pid, pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE pid = ANY (%(pids)s::integer[])
    AND usename = current_user
    AND application_name = current_setting('application_name')
    AND (state <> 'active' OR wait_event_type = 'Client')

-- name: no_time_limit
-- For the current transaction.
SELECT set_config('statement_timeout', '0', true)

-- name: session
-- The session that ran this statement; a pooler tells clients a number of its own.
SELECT pg_backend_pid()
