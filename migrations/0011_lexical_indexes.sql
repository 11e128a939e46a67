-- What each lexical index has followed last: the database that it was read from knows its mark, a restored one does not.
CREATE TABLE lexical_indexes (
    collection_id bigint NOT NULL,
    generation text NOT NULL COLLATE "C",
    mark uuid NOT NULL,
    former_mark uuid,
    -- The storage of `changes` and `documents`: another one after they were dropped or emptied.
    tables text NOT NULL,
    marked_at timestamptz NOT NULL,
    PRIMARY KEY (collection_id, generation)
);
