-- name: first_in_line
-- Have writers who come from now on wait: without it those who overlap would never leave a moment to `alone`.
SELECT pg_advisory_xact_lock(hashtextextended('azimuth writers ' || %(id)s::bigint, 0))

-- name: alone
-- Lock a collection against writers, who hold its row FOR KEY SHARE; no row where it is gone.
SELECT id FROM collections WHERE id = %(id)s FOR UPDATE

-- name: present
-- Keep a collection from being deleted; no row where it is gone.
SELECT id FROM collections WHERE id = %(id)s FOR KEY SHARE
