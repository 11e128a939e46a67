-- Versions that are filled, verified and promoted while the collection serves; who did it, and on which evidence.

ALTER TABLE collections ADD COLUMN previous_version integer;

ALTER TABLE embedder_versions
    ADD COLUMN index_settings jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN reason text,
    ADD COLUMN evidence jsonb,
    -- How far the backfill looked: documents up to this id were enqueued, so many of them; NULL at the start.
    ADD COLUMN backfill_cursor text COLLATE "C",
    ADD COLUMN backfill_enqueued bigint NOT NULL DEFAULT 0,
    ADD COLUMN backfill_everything boolean NOT NULL DEFAULT false,
    -- The latest notes of [seconds since the epoch, documents done], from which the rate is told.
    ADD COLUMN backfill_notes jsonb NOT NULL DEFAULT '[]';

-- Whatever goes wrong, a collection never has two versions that answer.
CREATE UNIQUE INDEX embedder_versions_active ON embedder_versions (collection_id) WHERE state = 'active';

CREATE TABLE audit (
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    version integer,
    before integer,
    note text NOT NULL,
    details jsonb NOT NULL,
    PRIMARY KEY (collection_id, number)
);

-- One test set a collection, replaced as a whole.
CREATE TABLE judgments (
    collection_id bigint PRIMARY KEY REFERENCES collections (id) ON DELETE CASCADE,
    queries jsonb NOT NULL,
    grades jsonb NOT NULL,
    uploaded_at timestamptz NOT NULL
);

-- Heartbeats of API processes: a promotion waits until all of them have the new query encoder.
CREATE TABLE processes (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    seen_at timestamptz NOT NULL,
    proven text[] NOT NULL
);
