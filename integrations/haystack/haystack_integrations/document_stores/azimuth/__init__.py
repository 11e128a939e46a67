"""Azimuth as a document store of Haystack."""

from haystack_integrations.document_stores.azimuth.document_store import AzimuthDocumentStore

__all__ = ["AzimuthDocumentStore"]
