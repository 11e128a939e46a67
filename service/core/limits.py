"""Limits that pgvector sets."""

MAX_EF_SEARCH = 1_000
"""The most that pgvector takes."""
