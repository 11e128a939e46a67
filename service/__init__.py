"""Azimuth: vector search over PostgreSQL and pgvector that cannot go wrong silently."""

__version__ = "0.1.0"
