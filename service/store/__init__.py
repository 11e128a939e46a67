"""PostgreSQL, its SQL and the lexical index on disk: the adapters of `ports`."""
