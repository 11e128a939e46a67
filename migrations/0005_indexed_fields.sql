-- Fields of the metadata that collections declare, and their values in a narrow table that has an order.

-- Writers keep the values of every field here but of those that are being emptied. A number is never given twice, so
-- that what is left of a dropped field is never taken for one that was declared anew.
CREATE TABLE indexed_fields (
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    number bigint GENERATED ALWAYS AS IDENTITY,
    name text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('building', 'ready', 'dropped', 'emptying')),
    -- Documents up to this id have their values; NULL at the start.
    filled_to text COLLATE "C",
    dropped_at timestamptz,
    PRIMARY KEY (collection_id, number)
);
CREATE UNIQUE INDEX indexed_fields_name ON indexed_fields (collection_id, name) WHERE state IN ('building', 'ready');

-- One row for each scalar that a path finds in a living document, elements of arrays included. `kind` 0: a boolean as
-- 0 or 1 in `number`; 1: a number; 2: the first code points of a text. What a kind does not use is 0 or ''.
-- `several`: the document has other values in this field as well.
CREATE TABLE indexed_values (
    collection_id bigint NOT NULL,
    field bigint NOT NULL,
    kind smallint NOT NULL,
    number numeric NOT NULL,
    text text COLLATE "C" NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    several boolean NOT NULL,
    PRIMARY KEY (collection_id, field, kind, number, text, document_id) INCLUDE (several)
);
CREATE INDEX indexed_values_document ON indexed_values (collection_id, document_id, field);
CREATE INDEX indexed_values_several ON indexed_values (collection_id, field, document_id) WHERE several;
