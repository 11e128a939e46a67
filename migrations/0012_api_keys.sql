-- API keys. Of a secret there is only its SHA-256. Rows stay when a key ends: once there was a key, keys are required.
CREATE TABLE api_keys (
    digest bytea PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('read', 'write', 'admin')),
    collections text[] NOT NULL,
    filter jsonb,
    rate text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    requests bigint NOT NULL DEFAULT 0
);

-- Who changed which key, and how.
CREATE TABLE api_key_changes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    name text NOT NULL,
    details jsonb NOT NULL
);
