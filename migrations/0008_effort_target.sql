-- The recall target that an effort was chosen for: where a client has set another since, it is chosen anew at once.
ALTER TABLE search_efforts ADD COLUMN target double precision NOT NULL DEFAULT 0;
