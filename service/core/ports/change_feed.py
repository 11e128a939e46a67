from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from service.core.change_feed import ChangePage, Position
from service.core.ids import CollectionId, DocumentId


class ChangeFeed(Protocol):
    """The changes of a collection: each document once, at its latest one. Late commits are never skipped."""

    async def after(self, collection_id: CollectionId, position: Position, limit: int, now: datetime) -> ChangePage:
        """The next changes, at most `limit`; continue with the position of the last one. CollectionNotFound."""

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        """The last position of these documents' changes."""
