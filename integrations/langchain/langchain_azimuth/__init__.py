"""Azimuth as a vector store of LangChain."""

from langchain_azimuth.vector_store import AzimuthVectorStore

__all__ = ["AzimuthVectorStore"]
