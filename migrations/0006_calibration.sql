-- What the top scores of searches in a version say of the question; NULL until it was learnt.
ALTER TABLE embedder_versions ADD COLUMN calibration jsonb;
