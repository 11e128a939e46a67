-- Images of documents: the file as it was sent, and the preview that models and consoles read. A document says by the
-- digest whether it has one. The bytes are compressed already.
ALTER TABLE documents ADD COLUMN image_digest bytea;

CREATE TABLE images (
    collection_id bigint NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    type text NOT NULL,
    content bytea NOT NULL,
    preview bytea NOT NULL,
    PRIMARY KEY (collection_id, document_id)
);
ALTER TABLE images ALTER COLUMN content SET STORAGE EXTERNAL, ALTER COLUMN preview SET STORAGE EXTERNAL;
