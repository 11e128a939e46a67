from datetime import datetime
from typing import Protocol

from service.core.ids import CollectionId
from service.core.versions import AuditEntry, Judgments


class TestSets(Protocol):
    """The judgments that were uploaded for collections."""

    async def put(self, collection_id: CollectionId, judgments: Judgments, entry: AuditEntry) -> None:
        """Replace the whole set, with its audit entry. CollectionNotFound where the collection is missing."""

    async def get(self, collection_id: CollectionId) -> Judgments | None: ...

    async def uploaded_at(self, collection_id: CollectionId) -> datetime | None:
        """`get(...).uploaded_at`, without reading the judgments."""

    async def delete(self, collection_id: CollectionId, entry: AuditEntry) -> None: ...
