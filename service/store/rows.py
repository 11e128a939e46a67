"""Rows of documents, as the queries of several modules select them."""

from datetime import datetime
from typing import Any

from service.domain import DocumentId, StoredDocument


def stored(
    document_id: str,
    title: str,
    text: str,
    metadata: dict[str, Any],
    revision: int,
    content_revision: int,
    created_at: datetime,
    updated_at: datetime,
) -> StoredDocument:
    """The columns in the order in which every query gives them."""
    return StoredDocument(
        id=DocumentId(document_id),
        title=title,
        text=text,
        metadata=metadata,
        revision=revision,
        content_revision=content_revision,
        created_at=created_at,
        updated_at=updated_at,
    )
