"""Port of the change feed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from service.core.change_feed import ChangePage, Position
from service.core.ids import CollectionId, DocumentId


class ChangeFeed(Protocol):
    """The change feed: each document once, at its latest change, late commits never skipped."""

    async def after(self, collection_id: CollectionId, position: Position, limit: int, now: datetime) -> ChangePage:
        """The next changes, at most `limit`. Follow them from the position of the last one, kept with all its fields.

        CollectionNotFound where it was deleted.
        """
        ...

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        """The furthest position among these documents' latest changes."""
        ...
