"""Port of the audit trail."""

from typing import Protocol

from service.core.ids import CollectionId
from service.core.versions import AuditEntry


class Audit(Protocol):
    """Who changed what, when, on which evidence. The other ports write their entries with what they change."""

    async def page(self, collection_id: CollectionId, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """Entries with smaller numbers than `before`, newest first."""
        ...

    async def add(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        """An entry of something that is kept elsewhere. CollectionNotFound where there is no such collection."""
        ...
