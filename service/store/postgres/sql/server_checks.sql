-- name: facts
-- What `check` judges. One row.
SELECT
    current_setting('server_version_num')::integer AS server_version,
    current_setting('server_encoding') AS encoding,
    current_database()::text AS database,
    current_user::text AS role,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector_installed,
    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS vector_available,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') AND to_regtype('halfvec') IS NULL AS vector_hidden,
    COALESCE(
        (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false
    ) OR (
        has_database_privilege(current_database(), 'CREATE')
        AND COALESCE(
            (SELECT bool_or(versions.trusted) FROM pg_available_extension_versions AS versions WHERE name = 'vector'),
            false
        )
    ) AS may_create_extension,
    current_schema()::text AS schema,
    COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create_tables,
    (SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = to_regclass('collections')) AS owner,
    COALESCE(
        (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('collections')), true
    ) AS owns_tables

-- name: installation
-- The identity that the first migration gave this database.
SELECT id FROM installation;
