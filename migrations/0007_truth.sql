-- What probes of searches found, added up by the minute: sums over `queries`, so that rows of any minutes can be added.
-- `ef_search` is 0 where the plan has none; `band` says how much the filter let pass (service/recall.py).
CREATE TABLE recall_probes (
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    embedder_version integer NOT NULL,
    leg text NOT NULL CHECK (leg IN ('dense', 'lexical')),
    plan text NOT NULL,
    band text NOT NULL,
    ef_search integer NOT NULL,
    minute timestamptz NOT NULL,
    queries bigint NOT NULL,
    recall double precision NOT NULL,
    recall_squares double precision NOT NULL,
    distance_recall double precision NOT NULL,
    seconds double precision NOT NULL,
    PRIMARY KEY (collection_id, embedder_version, leg, plan, band, ef_search, minute)
);

-- How far the index looks in each version, as the controller has chosen it.
CREATE TABLE search_efforts (
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    embedder_version integer NOT NULL,
    band text NOT NULL,
    ef_search integer NOT NULL,
    missed boolean NOT NULL,
    reason text NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (collection_id, embedder_version, band)
);

-- Recall and latency of the index by ef_search, as last calibrated; NULL until then.
ALTER TABLE embedder_versions ADD COLUMN curve jsonb;
