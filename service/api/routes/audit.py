"""The audit trail: who changed what, when, and on which evidence."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api import cursors
from service.api.dependencies import Here
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.ids import CollectionName
from service.core.versions import Action, AuditEntry

router = APIRouter(prefix="/v1/collections/{collection}/audit", tags=["audit"])


class EntryAnswer(TypedDict):
    number: int
    """Grows with each entry."""
    at: str
    actor: str
    """`key` with the beginning of its SHA-256, `client` with its address where there are no keys, or `azimuth`: what
    the service did by itself."""
    action: Action
    version: int | None
    """What the entry is about, or what became active."""
    before: int | None
    """What was active until then."""
    note: str
    details: dict[str, Any]
    """With the checks that were looked at, for a promotion."""


class AuditPage(TypedDict):
    entries: list[EntryAnswer]
    next_cursor: str | None


@router.get(
    "",
    summary="Who changed what, newest first",
    response_model=AuditPage,
    responses=documented(401, 404, 422, 503),
)
async def listed(service: Here, collection: requests.Name, query: Annotated[requests.PageQuery, Query()]) -> Response:
    listing = f"{collection}/audit"
    before = None if query.cursor is None else int(cursors.read(listing, query.cursor))
    found = await service.collections.by_name(CollectionName(collection))
    page = await service.audit.page(found.id, before, query.limit + 1)
    shown = page[: query.limit]
    more = len(page) > query.limit
    return answers.Json(
        {
            "entries": [_entry(one) for one in shown],
            "next_cursor": cursors.issue(listing, str(shown[-1].number)) if more else None,
        }
    )


def _entry(one: AuditEntry) -> EntryAnswer:
    return {
        "number": one.number,
        "at": one.at.isoformat(),
        "actor": one.actor,
        "action": one.action,
        "version": one.version,
        "before": one.before,
        "note": one.note,
        "details": dict(one.details),
    }
