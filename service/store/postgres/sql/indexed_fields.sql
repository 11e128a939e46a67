-- name: declare
-- New fields of a collection; the others are there already.
INSERT INTO indexed_fields (collection_id, name, type, state)
SELECT %(collection_id)s, n.name, n.type, %(state)s
FROM unnest(%(names)s::text[], %(types)s::text[]) AS n (name, type)
WHERE NOT EXISTS (
    SELECT FROM indexed_fields AS f
    WHERE f.collection_id = %(collection_id)s AND f.name = n.name AND f.state IN ('building', 'ready')
)
RETURNING name, type

-- name: undeclare
-- Drop the fields of a collection that are not named with this type (any more).
UPDATE indexed_fields AS f
SET state = 'dropped', dropped_at = %(now)s
WHERE f.collection_id = %(collection_id)s
    AND f.state IN ('building', 'ready')
    AND NOT EXISTS (
        SELECT FROM unnest(%(names)s::text[], %(types)s::text[]) AS n (name, type)
        WHERE n.name = f.name AND n.type IS NOT DISTINCT FROM f.type
    )

-- name: of_other_types
-- The first living documents with a value that is not of the type of a field, in the order of ids.
SELECT d.document_id, e.value
FROM documents AS d
CROSS JOIN unnest(%(paths)s::jsonpath[]) AS p (path)
CROSS JOIN LATERAL jsonb_path_query(d.metadata, p.path) AS e (value)
WHERE d.collection_id = %(collection_id)s
    AND (%(ids)s::text[] IS NULL OR d.document_id = ANY (%(ids)s::text[]))
    AND d.deleted_at IS NULL
    AND jsonb_typeof(e.value) <> 'null'
    AND CASE %(type)s WHEN 'datetime' THEN {instant} IS NULL ELSE jsonb_typeof(e.value) <> %(type)s END
ORDER BY d.document_id
LIMIT 3

-- name: fields
-- The fields of a collection that are declared, in the order of names.
SELECT number, name, state, type FROM indexed_fields
WHERE collection_id = %(collection_id)s AND state IN ('building', 'ready')
ORDER BY name

-- name: kept
-- The fields of a collection whose values writers keep, and whether they were dropped.
SELECT number, name, type, state = 'dropped' FROM indexed_fields
WHERE collection_id = %(collection_id)s AND state <> 'emptying'
ORDER BY number

-- name: keep
-- Make the values of documents those of their metadata. What stays as it is is not touched.
WITH found AS (
    SELECT DISTINCT
           f.field,
           CASE jsonb_typeof(e.value)
               WHEN 'boolean' THEN 0
               WHEN 'number' THEN 1
               ELSE CASE WHEN f.instants THEN 3 ELSE 2 END
           END::smallint AS kind,
           CASE jsonb_typeof(e.value)
               WHEN 'number' THEN e.value::numeric
               WHEN 'boolean' THEN e.value::boolean::integer::numeric
               ELSE CASE WHEN f.instants THEN {instant} ELSE 0 END
           END AS number,
           CASE
               WHEN jsonb_typeof(e.value) = 'string' AND NOT f.instants THEN left(e.value #>> '{{}}', %(prefix)s)
               ELSE ''
           END COLLATE "C" AS text,
           d.document_id
    FROM documents AS d
    CROSS JOIN unnest(%(fields)s::bigint[], %(paths)s::jsonpath[], %(instants)s::boolean[]) AS f (field, path, instants)
    CROSS JOIN LATERAL jsonb_path_query(d.metadata, f.path) AS e (value)
    WHERE d.collection_id = %(collection_id)s
        AND d.document_id = ANY (%(ids)s::text[])
        AND d.deleted_at IS NULL
        AND jsonb_typeof(e.value) IN ('boolean', 'number', 'string')
),
told AS MATERIALIZED (
    SELECT field, kind, number, text, document_id, count(*) OVER (PARTITION BY field, document_id) > 1 AS several
    FROM found
    WHERE number IS NOT NULL
),
gone AS (
    DELETE FROM indexed_values AS v
    WHERE v.collection_id = %(collection_id)s
        AND v.document_id = ANY (%(ids)s::text[])
        AND v.field = ANY (%(fields)s::bigint[])
        AND NOT EXISTS (
            SELECT FROM told AS t
            WHERE t.document_id = v.document_id
                AND t.field = v.field
                AND t.kind = v.kind
                AND t.number = v.number
                AND t.text = v.text
        )
)
INSERT INTO indexed_values AS v (collection_id, field, kind, number, text, document_id, several)
SELECT %(collection_id)s, field, kind, number, text, document_id, several
FROM told
ORDER BY document_id, field
ON CONFLICT (collection_id, field, kind, number, text, document_id) DO UPDATE SET several = excluded.several
WHERE v.several <> excluded.several

-- name: pending
-- Fields that are still to be filled or emptied.
SELECT collection_id, number, state
FROM indexed_fields
WHERE state IN ('building', 'emptying') OR (state = 'dropped' AND dropped_at < %(dropped_before)s)
ORDER BY collection_id, number

-- name: lock_fields
-- The fields of a collection that are filled, for this transaction alone; those that another has are left out.
SELECT number, name, type, filled_to
FROM indexed_fields
WHERE collection_id = %(collection_id)s AND state = 'building'
ORDER BY number
FOR UPDATE SKIP LOCKED

-- name: portion
-- The next living documents.
SELECT document_id
FROM documents
WHERE collection_id = %(collection_id)s AND document_id > %(after)s AND deleted_at IS NULL
ORDER BY document_id
LIMIT %(limit)s

-- name: lock_documents
-- Keep documents as they are until the transaction ends, as an upsert does; nothing is changed.
INSERT INTO documents AS d (
    collection_id, document_id, title, text, metadata, content_hash, revision, content_revision, created_at, updated_at
)
SELECT o.collection_id, o.document_id, '', '', '{}', '', 1, 1, o.created_at, o.updated_at
FROM documents AS o
WHERE o.collection_id = %(collection_id)s AND o.document_id = ANY (%(ids)s::text[])
ORDER BY o.document_id
ON CONFLICT (collection_id, document_id) DO UPDATE SET revision = d.revision
WHERE false

-- name: filled
-- How far the values of fields reach, and whether they are all there.
UPDATE indexed_fields
SET filled_to = %(filled_to)s, state = %(state)s
WHERE collection_id = %(collection_id)s AND number = ANY (%(numbers)s::bigint[])

-- name: stop_keeping
-- Writers no longer keep the values of a field.
UPDATE indexed_fields SET state = 'emptying'
WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = 'dropped'

-- name: empty
-- Removes some of the values of a field that nobody keeps or reads.
DELETE FROM indexed_values
WHERE collection_id = %(collection_id)s
    AND field = %(number)s
    AND document_id IN (
        SELECT v.document_id FROM indexed_values AS v
        WHERE v.collection_id = %(collection_id)s AND v.field = %(number)s
        LIMIT %(limit)s
    )

-- name: delete_field
-- A field without values ends.
DELETE FROM indexed_fields WHERE collection_id = %(collection_id)s AND number = %(number)s AND state = 'emptying'

-- name: delete_values
-- All of a collection.
DELETE FROM indexed_values WHERE collection_id = %(collection_id)s
