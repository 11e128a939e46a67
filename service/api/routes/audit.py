"""The audit trail: who changed what, when, and on which evidence."""

from typing import Annotated

from fastapi import Query
from typing_extensions import TypedDict

from service.api.cursors import decode_cursor, split_page
from service.api.dependencies import ServiceDep
from service.api.routing import collection_router
from service.api.schemas.base import CollectionPath, PageQuery
from service.core.versions import AuditEntry

router = collection_router("/audit", "audit")


class AuditPage(TypedDict):
    """Entries by number, which grows with each.

    `actor`: `key` with the beginning of its SHA-256, `client` with its address where there are no keys, or `azimuth`
    for what the service did by itself. `details` of a promotion has the checks that were considered.
    """

    entries: list[AuditEntry]
    next_cursor: str | None


@router.get("", summary="Who changed what, newest first")
async def list_entries(
    service: ServiceDep, collection: CollectionPath, query: Annotated[PageQuery, Query()]
) -> AuditPage:
    listing = f"{collection}/audit"
    before = decode_cursor(listing, query.cursor)
    found = await service.collections.by_name(collection)
    rows = await service.audit.page(found.id, None if before is None else int(before), query.limit + 1)
    entries, next_cursor = split_page(listing, rows, query.limit, lambda entry: str(entry.number))
    return {"entries": list(entries), "next_cursor": next_cursor}
