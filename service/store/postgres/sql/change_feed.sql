-- name: record
-- Moves documents to the present end of the feed. Followers see them once this transaction and all older ones ended.
INSERT INTO changes (collection_id, document_id, xid, changed_at)
SELECT %(collection_id)s::bigint, n.document_id, pg_current_xact_id(), %(now)s::timestamptz
FROM unnest(%(ids)s::text[]) AS n (document_id)
ORDER BY n.document_id COLLATE "C"
ON CONFLICT (collection_id, document_id) DO UPDATE SET xid = excluded.xid, changed_at = excluded.changed_at

-- name: after
-- The next changes below the horizon with the documents as they are now, up to a number of bytes and always the first,
-- beside the state of the feed (always a row). `found`: how many there are without the limit of bytes.
SELECT state.purged_xid::text::bigint AS purged,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
       latest.xid::text::bigint AS latest_xid,
       latest.xid >= pg_snapshot_xmin(pg_current_snapshot()) AS ahead,
       index.generation IS NOT NULL AS known,
       waiting.changed_at AS waiting_since,
       page.xid::text::bigint, page.document_id, page.present, page.title, page.text, page.metadata, page.revision,
       page.content_revision, page.created_at, page.updated_at, page.image_digest, page.found
FROM collections AS state
LEFT JOIN lexical_indexes AS index
    ON index.collection_id = state.id AND index.generation = %(generation)s
    AND %(token)s::uuid IN (index.mark, index.former_mark)
    AND index.tables = concat_ws(' ', pg_relation_filenode('changes'), pg_relation_filenode('documents'))
LEFT JOIN LATERAL (
    -- The oldest change not yet read, whether it may be followed already or not.
    SELECT c.changed_at
    FROM changes AS c
    WHERE c.collection_id = state.id AND (c.xid, c.document_id) > (%(xid)s::text::xid8, %(document_id)s)
        AND (c.xid >= %(seen)s::text::xid8 OR c.xid = ANY (%(running)s::text[]::xid8[]))
    ORDER BY c.xid, c.document_id
    LIMIT 1
) AS waiting ON true
LEFT JOIN LATERAL (
    SELECT c.xid FROM changes AS c WHERE c.collection_id = state.id ORDER BY c.xid DESC, c.document_id DESC LIMIT 1
) AS latest ON true
LEFT JOIN LATERAL (
    SELECT r.*
    FROM (
        SELECT c.xid, c.document_id, d.document_id IS NOT NULL AS present, d.title, d.text,
               coalesce(d.sent_metadata, d.metadata) AS metadata, d.revision, d.content_revision,
               d.created_at, d.updated_at, d.image_digest, count(*) OVER () AS found, coalesce(octet_length(d.title) + octet_length(d.text) + pg_column_size(d.metadata), 0) AS size,
               sum(coalesce(octet_length(d.title) + octet_length(d.text) + pg_column_size(d.metadata), 0)) OVER (ORDER BY c.xid, c.document_id) AS total
        FROM (
            SELECT xid, document_id
            FROM changes
            WHERE collection_id = state.id
                AND (xid, document_id) > (%(xid)s::text::xid8, %(document_id)s)
                AND xid < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY xid, document_id
            LIMIT %(limit)s
        ) AS c
        LEFT JOIN documents AS d
            ON d.collection_id = state.id AND d.document_id = c.document_id AND d.deleted_at IS NULL
    ) AS r
    WHERE r.total <= %(bytes)s OR r.total = r.size
) AS page ON true
WHERE state.id = %(collection_id)s
ORDER BY page.xid, page.document_id

-- name: ahead
-- Committed changes that an earlier snapshot did not show. Whatever was running then is older than all that began since,
-- so that two walks of the index, one after the other, keep the order.
SELECT pg_current_snapshot()::text, page.*
FROM (VALUES (1)) AS one (row)
LEFT JOIN LATERAL (
    SELECT r.xid::text::bigint, r.document_id, r.present, r.title, r.text, r.metadata, r.revision, r.content_revision,
           r.created_at, r.updated_at, r.image_digest, r.found
    FROM (
        SELECT c.xid, c.document_id, d.document_id IS NOT NULL AS present, d.title, d.text,
               coalesce(d.sent_metadata, d.metadata) AS metadata, d.revision, d.content_revision,
               d.created_at, d.updated_at, d.image_digest, count(*) OVER () AS found, coalesce(octet_length(d.title) + octet_length(d.text) + pg_column_size(d.metadata), 0) AS size,
               sum(coalesce(octet_length(d.title) + octet_length(d.text) + pg_column_size(d.metadata), 0)) OVER (ORDER BY c.xid, c.document_id) AS total
        FROM (
            (
                SELECT xid, document_id
                FROM changes
                WHERE collection_id = %(collection_id)s AND xid = ANY (%(running)s::text[]::xid8[])
                    AND (xid, document_id) > (%(xid)s::text::xid8, %(document_id)s)
                ORDER BY xid, document_id
                LIMIT %(limit)s
            ) UNION ALL (
                SELECT xid, document_id
                FROM changes
                WHERE collection_id = %(collection_id)s AND xid >= %(seen)s::text::xid8
                    AND (xid, document_id) > (%(xid)s::text::xid8, %(document_id)s)
                ORDER BY xid, document_id
                LIMIT %(limit)s
            )
            ORDER BY xid, document_id
            LIMIT %(limit)s
        ) AS c
        LEFT JOIN documents AS d
            ON d.collection_id = %(collection_id)s AND d.document_id = c.document_id AND d.deleted_at IS NULL
    ) AS r
    WHERE r.total <= %(bytes)s OR r.total = r.size
) AS page ON true
ORDER BY page.xid, page.document_id

-- name: newest
-- The last change of each collection, by an index alone.
SELECT c.id, latest.xid::text::bigint
FROM collections AS c
CROSS JOIN LATERAL (
    SELECT n.xid FROM changes AS n WHERE n.collection_id = c.id ORDER BY n.xid DESC, n.document_id DESC LIMIT 1
) AS latest

-- name: mark
-- Another token for an index that this database knows by its last one, or the one before: a crash may come before the
-- new one is kept. The first where it has none. No row where it is of another state of the database.
INSERT INTO lexical_indexes AS known (collection_id, generation, mark, tables, marked_at)
SELECT c.id, %(generation)s, gen_random_uuid(),
       concat_ws(' ', pg_relation_filenode('changes'), pg_relation_filenode('documents')), %(now)s::timestamptz
FROM collections AS c
WHERE c.id = %(collection_id)s AND (%(token)s::uuid IS NULL OR EXISTS (
    SELECT FROM lexical_indexes AS i WHERE i.collection_id = c.id AND i.generation = %(generation)s
))
ON CONFLICT (collection_id, generation) DO UPDATE
    SET former_mark = %(token)s::uuid, mark = excluded.mark, marked_at = excluded.marked_at
    WHERE %(token)s::uuid IN (known.mark, known.former_mark) AND known.tables = excluded.tables
RETURNING mark

-- name: position_of
-- The latest change of the named documents. Materialised, lest the feed be walked from its end until one turns up.
WITH named AS MATERIALIZED (
    SELECT xid, document_id
    FROM changes
    WHERE collection_id = %(collection_id)s AND document_id = ANY (%(ids)s::text[])
)
SELECT xid::text::bigint, document_id FROM named ORDER BY named.xid DESC, document_id DESC LIMIT 1

-- name: last_missing
-- The last change up to a transaction that a reader lacks, and whether there was such a transaction at all.
SELECT %(revision)s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) AS known,
       missing.xid::text::bigint, missing.document_id
FROM (VALUES (1)) AS one (row)
LEFT JOIN LATERAL (
    SELECT c.xid, c.document_id
    FROM changes AS c
    WHERE c.collection_id = %(collection_id)s AND c.xid <= %(revision)s::text::xid8
        AND (c.xid, c.document_id) > (%(xid)s::text::xid8, %(document_id)s)
        AND (c.xid >= %(seen)s::text::xid8 OR c.xid = ANY (%(running)s::text[]::xid8[]))
    ORDER BY c.xid DESC, c.document_id DESC
    LIMIT 1
) AS missing ON true
