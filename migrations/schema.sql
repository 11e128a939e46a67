-- What all migrations make of an empty database, as pg_dump tells it. Written by `python -m tests.schema`; to read,
-- not to run: databases are made and changed by the numbered files alone.

CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;

CREATE TABLE public.aliases (
    alias text NOT NULL COLLATE pg_catalog."C",
    collection_id bigint NOT NULL
);

CREATE TABLE public.api_key_changes (
    number bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    name text NOT NULL,
    details jsonb NOT NULL
);

ALTER TABLE public.api_key_changes ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.api_key_changes_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.api_keys (
    digest bytea NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    collections text[] NOT NULL,
    filter jsonb,
    rate text,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    requests bigint DEFAULT 0 NOT NULL,
    CONSTRAINT api_keys_role_check CHECK ((role = ANY (ARRAY['read'::text, 'write'::text, 'admin'::text])))
);

CREATE TABLE public.audit (
    collection_id bigint NOT NULL,
    number bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    version integer,
    before integer,
    note text NOT NULL,
    details jsonb NOT NULL
);

ALTER TABLE public.audit ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.changes (
    collection_id bigint NOT NULL,
    document_id text NOT NULL COLLATE pg_catalog."C",
    xid xid8 NOT NULL,
    changed_at timestamp with time zone NOT NULL
);

CREATE TABLE public.collections (
    id bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    settings jsonb NOT NULL,
    active_version integer NOT NULL,
    purged_xid xid8 DEFAULT '0'::xid8 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    previous_version integer
);

ALTER TABLE public.collections ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.collections_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.documents (
    collection_id bigint NOT NULL,
    document_id text NOT NULL COLLATE pg_catalog."C",
    title text NOT NULL,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    content_hash bytea NOT NULL,
    revision bigint NOT NULL,
    content_revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    sent_metadata jsonb,
    image_digest bytea
);

CREATE TABLE public.embedder_versions (
    collection_id bigint NOT NULL,
    number integer NOT NULL,
    state text NOT NULL,
    spec jsonb NOT NULL,
    chunking jsonb NOT NULL,
    identity jsonb NOT NULL,
    fingerprint text NOT NULL,
    canary jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    index_settings jsonb DEFAULT '{}'::jsonb NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    reason text,
    evidence jsonb,
    backfill_cursor text COLLATE pg_catalog."C",
    backfill_enqueued bigint DEFAULT 0 NOT NULL,
    backfill_everything boolean DEFAULT false NOT NULL,
    backfill_notes jsonb DEFAULT '[]'::jsonb NOT NULL,
    calibration jsonb,
    curve jsonb,
    CONSTRAINT embedder_versions_state_check CHECK ((state = ANY (ARRAY['backfilling'::text, 'indexing'::text, 'verifying'::text, 'ready'::text, 'active'::text, 'retired'::text, 'failed'::text])))
);

CREATE TABLE public.feedback (
    collection_id bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    query text NOT NULL,
    answered boolean NOT NULL,
    documents text[] NOT NULL,
    actor text NOT NULL,
    at timestamp with time zone NOT NULL
);

CREATE TABLE public.images (
    collection_id bigint NOT NULL,
    document_id text NOT NULL COLLATE pg_catalog."C",
    type text NOT NULL,
    content bytea NOT NULL,
    preview bytea NOT NULL
);
ALTER TABLE ONLY public.images ALTER COLUMN content SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.images ALTER COLUMN preview SET STORAGE EXTERNAL;

CREATE TABLE public.indexed_fields (
    collection_id bigint NOT NULL,
    number bigint NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    state text NOT NULL,
    filled_to text COLLATE pg_catalog."C",
    dropped_at timestamp with time zone,
    type text,
    CONSTRAINT indexed_fields_state_check CHECK ((state = ANY (ARRAY['building'::text, 'ready'::text, 'dropped'::text, 'emptying'::text]))),
    CONSTRAINT indexed_fields_type_check CHECK ((type = ANY (ARRAY['datetime'::text, 'number'::text, 'string'::text])))
);

ALTER TABLE public.indexed_fields ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.indexed_fields_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.indexed_values (
    collection_id bigint NOT NULL,
    field bigint NOT NULL,
    kind smallint NOT NULL,
    number numeric NOT NULL,
    text text NOT NULL COLLATE pg_catalog."C",
    document_id text NOT NULL COLLATE pg_catalog."C",
    several boolean NOT NULL
);

CREATE TABLE public.installation (
    id uuid NOT NULL
);

CREATE TABLE public.jobs (
    collection_id bigint NOT NULL,
    document_id text NOT NULL COLLATE pg_catalog."C",
    embedder_version integer NOT NULL,
    content_revision bigint NOT NULL,
    priority smallint NOT NULL,
    enqueued_at timestamp with time zone NOT NULL,
    available_at timestamp with time zone NOT NULL,
    lease uuid,
    worker text,
    lost_leases integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    reason text,
    set_aside_at timestamp with time zone
);

CREATE TABLE public.judgments (
    collection_id bigint NOT NULL,
    queries jsonb NOT NULL,
    grades jsonb NOT NULL,
    uploaded_at timestamp with time zone NOT NULL
);

CREATE TABLE public.lexical_indexes (
    collection_id bigint NOT NULL,
    generation text NOT NULL COLLATE pg_catalog."C",
    mark uuid NOT NULL,
    former_mark uuid,
    tables text NOT NULL,
    marked_at timestamp with time zone NOT NULL
);

CREATE TABLE public.processes (
    id uuid NOT NULL,
    host text NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    proven text[] NOT NULL
);

CREATE TABLE public.recall_probes (
    collection_id bigint NOT NULL,
    embedder_version integer NOT NULL,
    leg text NOT NULL,
    plan text NOT NULL,
    band text NOT NULL,
    ef_search integer NOT NULL,
    minute timestamp with time zone NOT NULL,
    queries bigint NOT NULL,
    recall double precision NOT NULL,
    recall_squares double precision NOT NULL,
    distance_recall double precision NOT NULL,
    seconds double precision NOT NULL,
    CONSTRAINT recall_probes_leg_check CHECK ((leg = ANY (ARRAY['dense'::text, 'lexical'::text])))
);

CREATE TABLE public.schema_migrations (
    number integer NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone NOT NULL
);

CREATE TABLE public.search_efforts (
    collection_id bigint NOT NULL,
    embedder_version integer NOT NULL,
    band text NOT NULL,
    ef_search integer NOT NULL,
    missed boolean NOT NULL,
    reason text NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    target double precision DEFAULT 0 NOT NULL
);

ALTER TABLE ONLY public.aliases
    ADD CONSTRAINT aliases_pkey PRIMARY KEY (alias);

ALTER TABLE ONLY public.api_key_changes
    ADD CONSTRAINT api_key_changes_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (digest);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (collection_id, number);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (collection_id, document_id);

ALTER TABLE ONLY public.collections
    ADD CONSTRAINT collections_name_key UNIQUE (name);

ALTER TABLE ONLY public.collections
    ADD CONSTRAINT collections_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.documents
    ADD CONSTRAINT documents_pkey PRIMARY KEY (collection_id, document_id);

ALTER TABLE ONLY public.embedder_versions
    ADD CONSTRAINT embedder_versions_pkey PRIMARY KEY (collection_id, number);

ALTER TABLE ONLY public.feedback
    ADD CONSTRAINT feedback_pkey PRIMARY KEY (collection_id, id);

ALTER TABLE ONLY public.images
    ADD CONSTRAINT images_pkey PRIMARY KEY (collection_id, document_id);

ALTER TABLE ONLY public.indexed_fields
    ADD CONSTRAINT indexed_fields_pkey PRIMARY KEY (collection_id, number);

ALTER TABLE ONLY public.indexed_values
    ADD CONSTRAINT indexed_values_pkey PRIMARY KEY (collection_id, field, kind, number, text, document_id) INCLUDE (several);

ALTER TABLE ONLY public.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (collection_id, document_id, embedder_version);

ALTER TABLE ONLY public.judgments
    ADD CONSTRAINT judgments_pkey PRIMARY KEY (collection_id);

ALTER TABLE ONLY public.lexical_indexes
    ADD CONSTRAINT lexical_indexes_pkey PRIMARY KEY (collection_id, generation);

ALTER TABLE ONLY public.processes
    ADD CONSTRAINT processes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.recall_probes
    ADD CONSTRAINT recall_probes_pkey PRIMARY KEY (collection_id, embedder_version, leg, plan, band, ef_search, minute);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.search_efforts
    ADD CONSTRAINT search_efforts_pkey PRIMARY KEY (collection_id, embedder_version, band);

CREATE INDEX changes_order ON public.changes USING btree (collection_id, xid, document_id);

CREATE INDEX documents_deleted ON public.documents USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);

CREATE INDEX documents_metadata ON public.documents USING gin (metadata jsonb_path_ops);

CREATE UNIQUE INDEX embedder_versions_active ON public.embedder_versions USING btree (collection_id) WHERE (state = 'active'::text);

CREATE INDEX feedback_by_age ON public.feedback USING btree (collection_id, tenant, at);

CREATE UNIQUE INDEX indexed_fields_name ON public.indexed_fields USING btree (collection_id, name) WHERE (state = ANY (ARRAY['building'::text, 'ready'::text]));

CREATE INDEX indexed_values_document ON public.indexed_values USING btree (collection_id, document_id, field);

CREATE INDEX indexed_values_several ON public.indexed_values USING btree (collection_id, field, document_id) WHERE several;

CREATE INDEX jobs_claimable_by_collection ON public.jobs USING btree (collection_id, priority, enqueued_at, available_at) WHERE (set_aside_at IS NULL);

CREATE INDEX jobs_set_aside ON public.jobs USING btree (collection_id, document_id) WHERE (set_aside_at IS NOT NULL);

ALTER TABLE ONLY public.aliases
    ADD CONSTRAINT aliases_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.embedder_versions
    ADD CONSTRAINT embedder_versions_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.feedback
    ADD CONSTRAINT feedback_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.indexed_fields
    ADD CONSTRAINT indexed_fields_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.judgments
    ADD CONSTRAINT judgments_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.recall_probes
    ADD CONSTRAINT recall_probes_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.search_efforts
    ADD CONSTRAINT search_efforts_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES public.collections(id) ON DELETE CASCADE;
