-- Each vector is sealed to its version: `service/store/spaces.py` says why, and makes the tables of new versions so.
DO $$
DECLARE
    version record;
BEGIN
    FOR version IN
        SELECT relation.relname AS name, v.collection_id || '/' || v.number AS label
        FROM embedder_versions AS v
        JOIN pg_class AS relation
            ON relation.oid = to_regclass(format('vectors_%s_%s', v.collection_id, v.number))
    LOOP
        -- Written anew with its index, which is several times faster than updating row by row.
        EXECUTE format('ALTER TABLE %I ADD COLUMN seal bytea', version.name);
        EXECUTE format(
            'ALTER TABLE %I'
            ' ALTER COLUMN seal TYPE bytea USING substring(sha256(halfvec_send(embedding) || %L::bytea) FOR 8),'
            ' ALTER COLUMN seal SET NOT NULL,'
            ' ADD CONSTRAINT sealed CHECK (seal = substring(sha256(halfvec_send(embedding) || %L::bytea) FOR 8))',
            version.name, version.label, version.label
        );
    END LOOP;
END
$$;
