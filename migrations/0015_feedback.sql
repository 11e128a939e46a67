-- Queries that clients marked as answered or not. `tenant`: a digest of the key's filter, empty for keys without one.
CREATE TABLE feedback (
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    query text NOT NULL,
    answered boolean NOT NULL,
    documents text[] NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (collection_id, id)
);
CREATE INDEX feedback_by_age ON feedback (collection_id, tenant, at);
