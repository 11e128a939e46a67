-- Types of declared fields, names with dots, and one Unicode form of metadata.

-- NULL: any. The values of a `datetime` are instants: `kind` 3 in `indexed_values`, seconds since 1970 in `number`.
ALTER TABLE indexed_fields ADD COLUMN type text CHECK (type IN ('datetime', 'number', 'string'));

-- A name with dots finds literal keys as well: the index of such a field is filled again.
UPDATE indexed_fields SET state = 'building', filled_to = NULL
WHERE state IN ('building', 'ready') AND strpos(name, '.') > 0;

-- `metadata` is in the normal form NFC, which filters compare; where a client sent another form, this is what it sent.
ALTER TABLE documents ADD COLUMN sent_metadata jsonb;

-- An escape before a combining character would be taken for a letter with it: such a row waits until it is written again.
UPDATE documents SET sent_metadata = metadata, metadata = normalize(metadata::text, NFC)::jsonb
WHERE metadata::text IS NOT NFC NORMALIZED AND metadata::text !~ '\\(u[0-9a-f]{4}|[bfnrt])[^\u0001-\u007f]';
