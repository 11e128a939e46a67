from typing import Protocol

from service.core.ids import CollectionId
from service.core.versions import AuditEntry


class Audit(Protocol):
    """The audit log of a collection. The other ports write their entries together with their changes."""

    async def page(self, collection_id: CollectionId, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """Entries with numbers below `before`, newest first."""

    async def add(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        """Add an entry for a change that no other port makes. CollectionNotFound where the collection is missing."""
