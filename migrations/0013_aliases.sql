-- Other names of collections. No alias is the name of a collection; a collection takes its aliases with it.
CREATE TABLE aliases (
    alias text COLLATE "C" PRIMARY KEY,
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE
);
