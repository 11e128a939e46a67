-- name: state
-- The cluster and its timeline (another after point-in-time recovery, and of a replica that took over), the database
-- (another after DROP and CREATE), the storage of tables (another after DROP or TRUNCATE), and the transaction that wrote
-- a row that is never written again (another after any restore of the row). No row until the migrations' list is there.
SELECT concat_ws(
           ' ', c.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid,
           pg_relation_filenode('collections'), pg_relation_filenode('embedder_versions'),
           pg_relation_filenode('documents'), pg_relation_filenode('changes'), i.xmin
       ),
       pg_current_wal_lsn() - '0/0'
FROM installation AS i, pg_control_system() AS c, pg_database AS d
WHERE d.datname = current_database() AND EXISTS (SELECT FROM schema_migrations)
