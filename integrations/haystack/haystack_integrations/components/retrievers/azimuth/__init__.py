"""Retrievers over Azimuth."""

from haystack_integrations.components.retrievers.azimuth.retriever import AzimuthRetriever

__all__ = ["AzimuthRetriever"]
