"""Limits of pgvector."""

MAX_EF_SEARCH = 1_000
