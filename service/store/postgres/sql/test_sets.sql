-- name: put
-- Replaces the whole test set of a collection.
INSERT INTO judgments (collection_id, queries, grades, uploaded_at)
VALUES (%(collection_id)s, %(queries)s, %(grades)s, %(now)s)
ON CONFLICT (collection_id) DO UPDATE SET
    queries = excluded.queries, grades = excluded.grades, uploaded_at = excluded.uploaded_at

-- name: get
-- All of it.
SELECT queries, grades, uploaded_at FROM judgments WHERE collection_id = %(collection_id)s

-- name: uploaded_at
-- Whether there is one, and since when.
SELECT uploaded_at FROM judgments WHERE collection_id = %(collection_id)s

-- name: delete
-- No row where there is none.
DELETE FROM judgments WHERE collection_id = %(collection_id)s
