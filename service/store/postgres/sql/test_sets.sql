-- name: put
-- Replaces the whole test set of a collection.
INSERT INTO judgments (collection_id, queries, grades, uploaded_at)
VALUES (%(collection_id)s, %(queries)s, %(grades)s, %(now)s)
ON CONFLICT (collection_id) DO UPDATE SET
    queries = excluded.queries, grades = excluded.grades, uploaded_at = excluded.uploaded_at

-- name: get
-- A row for each query; all of them in one value would take the event loop tens of milliseconds to parse.
SELECT query.key, query.value, graded.value, judgments.uploaded_at
FROM judgments
CROSS JOIN jsonb_each_text(judgments.queries) AS query
INNER JOIN jsonb_each(judgments.grades) AS graded USING (key)
WHERE judgments.collection_id = %(collection_id)s
ORDER BY query.key

-- name: uploaded_at
-- Whether there is one, and since when.
SELECT uploaded_at FROM judgments WHERE collection_id = %(collection_id)s

-- name: delete
-- No row where there is none.
DELETE FROM judgments WHERE collection_id = %(collection_id)s
