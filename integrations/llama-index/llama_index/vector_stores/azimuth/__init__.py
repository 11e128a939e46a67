"""Azimuth as a vector store of LlamaIndex."""

from llama_index.vector_stores.azimuth.base import AzimuthVectorStore

__all__ = ["AzimuthVectorStore"]
