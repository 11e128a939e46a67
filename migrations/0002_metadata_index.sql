-- transaction: false
-- An index over all metadata, for filters that ask for equality: without it each filtered search reads every document.
DROP INDEX CONCURRENTLY IF EXISTS documents_metadata;
CREATE INDEX CONCURRENTLY documents_metadata ON documents USING gin (metadata jsonb_path_ops);
