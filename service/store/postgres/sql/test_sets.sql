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

-- name: put_mark
-- One for each query of a tenant: the newest. Beyond so many, the oldest ones of the tenant go.
WITH dropped AS (
    DELETE FROM feedback
    WHERE collection_id = %(collection_id)s AND tenant = %(tenant)s AND id <> %(id)s AND at <= (
        SELECT at FROM feedback
        WHERE collection_id = %(collection_id)s AND tenant = %(tenant)s AND id <> %(id)s
        ORDER BY at DESC OFFSET %(most)s - 1 LIMIT 1
    )
)
INSERT INTO feedback (collection_id, id, tenant, query, answered, documents, actor, at)
VALUES (%(collection_id)s, %(id)s, %(tenant)s, %(query)s, %(answered)s, %(documents)s, %(actor)s, %(at)s)
ON CONFLICT (collection_id, id) DO UPDATE SET
    answered = excluded.answered, documents = excluded.documents, actor = excluded.actor, at = excluded.at

-- name: marks
-- Of one tenant or of all.
SELECT id, query, answered, documents, actor, tenant, at FROM feedback
WHERE collection_id = %(collection_id)s AND id > %(after)s AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
ORDER BY id LIMIT %(limit)s

-- name: count_marks
-- Of one tenant.
SELECT count(*) FROM feedback WHERE collection_id = %(collection_id)s AND tenant = %(tenant)s

-- name: delete_marks
-- One or all, of one tenant or of all.
DELETE FROM feedback
WHERE collection_id = %(collection_id)s
    AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s) AND (%(id)s::text IS NULL OR id = %(id)s)

-- name: delete_marks_before
-- Of all collections.
DELETE FROM feedback WHERE at < %(before)s
