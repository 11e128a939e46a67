-- name: with_value
-- Part of the statement below: the documents with a value of the first field, each once, by its first value.
SELECT d.document_id, d.content_revision
FROM indexed_values AS s0
CROSS JOIN LATERAL (
    SELECT d.document_id, d.content_revision FROM documents AS d
    WHERE d.collection_id = %(collection_id)s AND d.document_id = s0.document_id AND d.deleted_at IS NULL AND {where}
    LIMIT 1
) AS d
{joins}
WHERE s0.collection_id = %(collection_id)s AND s0.field = %(field_0)s{within}
    AND (
        NOT s0.several
        OR NOT EXISTS (
            SELECT FROM indexed_values AS v
            WHERE v.collection_id = %(collection_id)s AND v.document_id = s0.document_id AND v.field = %(field_0)s
                AND (v.kind, v.number, v.text) {before} (s0.kind, s0.number, s0.text)
        )
    )
ORDER BY {order}
LIMIT %(last)s

-- name: without_value
-- Part of the statement below: the documents without one.
SELECT d.document_id, d.content_revision
FROM documents AS d
{joins}
WHERE d.collection_id = %(collection_id)s AND d.deleted_at IS NULL AND {where}{within}
    AND NOT EXISTS (
        SELECT FROM indexed_values AS v
        WHERE v.collection_id = %(collection_id)s AND v.document_id = d.document_id AND v.field = %(field_0)s
    )
ORDER BY {order}
LIMIT %(last)s

-- name: joined
-- Part of the statements above: the value of a further field that comes first; none where there is none.
LEFT JOIN LATERAL (
    SELECT v.kind, v.number, v.text FROM indexed_values AS v
    WHERE v.collection_id = %(collection_id)s AND v.field = {field} AND v.document_id = d.document_id
    ORDER BY {order}
    LIMIT 1
) AS {alias} ON true

-- name: one_after_the_other
-- Documents in the order of fields. The second part is read only as far as the first is too short.
({first}) UNION ALL ({second}) OFFSET %(offset)s LIMIT %(limit)s
