-- Claims take turns by collection: each reads the first jobs of every collection.
CREATE INDEX jobs_claimable_by_collection ON jobs (collection_id, priority, enqueued_at, available_at)
    WHERE set_aside_at IS NULL;
DROP INDEX jobs_claimable;
