from datetime import datetime
from typing import Protocol

from service.core.ids import CollectionId
from service.core.versions import AuditEntry, Judgments, Mark


class TestSets(Protocol):
    """The judgments that were uploaded for collections, and queries that were marked. `tenant` None: of all."""

    async def put(self, collection_id: CollectionId, judgments: Judgments, entry: AuditEntry) -> None:
        """Replace the whole set, with its audit entry. CollectionNotFound where the collection is missing."""

    async def get(self, collection_id: CollectionId) -> Judgments | None: ...

    async def uploaded_at(self, collection_id: CollectionId) -> datetime | None:
        """`get(...).uploaded_at`, without reading the judgments."""

    async def delete(self, collection_id: CollectionId, entry: AuditEntry) -> None: ...

    async def put_mark(self, collection_id: CollectionId, mark: Mark) -> None:
        """Replace that of the same id; of a tenant's beyond `MAX_MARKS` the oldest go. CollectionNotFound."""

    async def marks(self, collection_id: CollectionId, tenant: str | None, after: str, limit: int) -> tuple[Mark, ...]:
        """In the order of their ids, after that id."""

    async def count_marks(self, collection_id: CollectionId, tenant: str) -> int: ...

    async def delete_marks(self, collection_id: CollectionId, tenant: str | None, mark_id: str | None) -> int:
        """One of them, or all; returns how many there were."""

    async def delete_marks_before(self, before: datetime) -> None: ...
