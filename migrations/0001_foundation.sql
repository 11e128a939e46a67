-- Collections, versions, documents, the queue and the change feed.
-- Rules: docs/architecture.md, "migrations/". No triggers, no foreign keys but to collections, times are passed in.

CREATE EXTENSION IF NOT EXISTS vector;

-- One row: names this database, so that files elsewhere (lexical indexes) can tell whose they are.
CREATE TABLE installation (
    id uuid PRIMARY KEY
);
INSERT INTO installation (id) VALUES (gen_random_uuid());

CREATE TABLE collections (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    settings jsonb NOT NULL,
    active_version integer NOT NULL,
    -- The furthest change whose tombstone was purged: a follower that stands before it must start again.
    purged_xid xid8 NOT NULL DEFAULT '0',
    created_at timestamptz NOT NULL
);

CREATE TABLE embedder_versions (
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    number integer NOT NULL,
    state text NOT NULL
        CHECK (state IN ('backfilling', 'indexing', 'verifying', 'ready', 'active', 'retired', 'failed')),
    spec jsonb NOT NULL,
    chunking jsonb NOT NULL,
    identity jsonb NOT NULL,
    fingerprint text NOT NULL,
    canary jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (collection_id, number)
);

-- A deleted document stays as an empty tombstone for a while, so that its revision goes on growing if it comes back.
CREATE TABLE documents (
    collection_id bigint NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    title text NOT NULL,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    content_hash bytea NOT NULL,
    revision bigint NOT NULL,
    content_revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (collection_id, document_id)
);
CREATE INDEX documents_deleted ON documents (deleted_at) WHERE deleted_at IS NOT NULL;

-- What waits for an embedder. `available_at` is also the end of the lease of a claimed job.
CREATE TABLE jobs (
    collection_id bigint NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    embedder_version integer NOT NULL,
    content_revision bigint NOT NULL,
    priority smallint NOT NULL,
    enqueued_at timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    lease uuid,
    worker text,
    lost_leases integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    reason text,
    set_aside_at timestamptz,
    PRIMARY KEY (collection_id, document_id, embedder_version)
);
CREATE INDEX jobs_claimable ON jobs (priority, enqueued_at, available_at) WHERE set_aside_at IS NULL;
CREATE INDEX jobs_set_aside ON jobs (collection_id, document_id) WHERE set_aside_at IS NOT NULL;

-- The change feed: one row a document, at its latest change. A sequence is not a commit order, so the transaction's
-- own id orders it, and followers read only below pg_snapshot_xmin(pg_current_snapshot()).
CREATE TABLE changes (
    collection_id bigint NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    xid xid8 NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (collection_id, document_id)
);
CREATE INDEX changes_order ON changes (collection_id, xid, document_id);
