"""Who may use which route: the one table. A route that is not in it is refused to everybody.

docs/security.md has the same table in words, and a test compares the two with the routes that there are.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from starlette.requests import Request

from service.core.access import ROLES, Access, KeyRole
from service.core.errors import Forbidden

Reach = Literal["documents", "collections", "everything"]
"""What an answer may be about, and so which keys get one.

documents    only documents that the filter of the key admits: any key
collections  all documents of a collection: keys without a filter
everything   all collections: keys without a filter, and for all collections
"""


class Permission(NamedTuple):
    """The least role; None: nobody needs a key."""

    role: KeyRole | None
    reach: Reach

    def refusal(self, access: Access) -> str | None:
        """Why this client may not use the route; None where it may."""
        if self.role is None:
            return None
        if access.role is None or ROLES.index(access.role) < ROLES.index(self.role):
            return f"this needs a key with the role {self.role}"
        if self.reach != "documents" and access.where is not None:
            return "this is about more documents than the filter of the key admits"
        if self.reach == "everything" and not access.whole:
            return "this is about all collections, and the key is for some of them"
        return None


OPEN: Final = Permission(None, "documents")
_READ, _WRITE = Permission("read", "documents"), Permission("write", "documents")
_LOOK, _CHANGE, _ADMINISTER = (Permission(role, "collections") for role in ROLES)
_KEYS = Permission("admin", "everything")
_ONE: Final = "/v1/collections/{collection}"

PERMISSIONS: Final[Mapping[str, Permission]] = {
    "GET /": OPEN,
    "GET /console/{name}": OPEN,
    "GET /docs": OPEN,
    "GET /livez": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": Permission("read", "everything"),
    "GET /v1/keys": _KEYS,
    "POST /v1/keys": _KEYS,
    "POST /v1/keys/{id}/rotate": _KEYS,
    "DELETE /v1/keys/{id}": _KEYS,
    "GET /v1/collections": _READ,
    f"POST {_ONE}/copy": _ADMINISTER,
    f"POST {_ONE}/rename": _ADMINISTER,
    "GET /v1/aliases": _READ,
    "GET /v1/jobs": _LOOK,
    "GET /v1/jobs/{id}": _LOOK,
    "POST /v1/aliases": _ADMINISTER,
    "PUT /v1/aliases/{alias}": _ADMINISTER,
    "DELETE /v1/aliases/{alias}": _ADMINISTER,
    f"GET {_ONE}": _READ,
    f"PUT {_ONE}": _ADMINISTER,
    f"DELETE {_ONE}": _ADMINISTER,
    f"GET {_ONE}/documents": _READ,
    f"POST {_ONE}/documents": _WRITE,
    f"GET {_ONE}/documents/{{id}}": _READ,
    f"DELETE {_ONE}/documents/{{id}}": _WRITE,
    f"PATCH {_ONE}/documents/{{id}}": _WRITE,
    f"GET {_ONE}/images/{{id}}": _READ,
    f"PUT {_ONE}/images/{{id}}": _WRITE,
    f"POST {_ONE}/count": _READ,
    f"GET {_ONE}/export": _READ,
    f"POST {_ONE}/documents/delete": _WRITE,
    f"POST {_ONE}/documents/upload": _WRITE,
    f"GET {_ONE}/documents/failed": _LOOK,
    f"GET {_ONE}/documents/fetch": _READ,
    f"POST {_ONE}/documents/fetch": _READ,
    f"POST {_ONE}/documents/failed/retry": _CHANGE,
    f"POST {_ONE}/search": _READ,
    f"POST {_ONE}/search/batch": _READ,
    f"POST {_ONE}/similar/{{id}}": _READ,
    f"POST {_ONE}/duplicates": _READ,
    f"POST {_ONE}/clusters": _READ,
    f"POST {_ONE}/classify": _READ,
    f"POST {_ONE}/facets": _READ,
    f"GET {_ONE}/suggest": _READ,
    f"POST {_ONE}/suggest": _READ,
    f"GET {_ONE}/judgments": _LOOK,
    f"POST {_ONE}/judgments": _CHANGE,
    f"DELETE {_ONE}/judgments": _CHANGE,
    f"GET {_ONE}/feedback": _READ,
    f"POST {_ONE}/feedback": _WRITE,
    f"DELETE {_ONE}/feedback": _WRITE,
    f"POST {_ONE}/evaluate": _LOOK,
    f"GET {_ONE}/audit": _LOOK,
    f"GET {_ONE}/drift": _LOOK,
    f"GET {_ONE}/geometry": _LOOK,
    f"GET {_ONE}/recall": _LOOK,
    f"GET {_ONE}/versions": _LOOK,
    f"POST {_ONE}/versions": _ADMINISTER,
    f"POST {_ONE}/versions/rollback": _ADMINISTER,
    f"GET {_ONE}/versions/{{number}}": _LOOK,
    f"DELETE {_ONE}/versions/{{number}}": _ADMINISTER,
    f"GET {_ONE}/versions/{{number}}/index": _LOOK,
    f"POST {_ONE}/versions/{{number}}/pause": _ADMINISTER,
    f"POST {_ONE}/versions/{{number}}/promote": _ADMINISTER,
    f"POST {_ONE}/versions/{{number}}/reindex": _ADMINISTER,
    f"POST {_ONE}/versions/{{number}}/resume": _ADMINISTER,
    "POST /": _READ,
    "POST /api/embed": _READ,
    "GET /api/tags": _READ,
    "POST /embed": _READ,
    "GET /health": OPEN,
    "GET /info": _READ,
    "POST /mcp": _READ,
    "POST /rerank": _READ,
    "POST /retrieval": _READ,
    "POST /similarity": _READ,
    "POST /tokenize": _READ,
    "POST /v1/embed": _READ,
    "POST /v1/embeddings": _READ,
    "GET /v1/models": _READ,
    "GET /v1/models/{id}": _READ,
    "POST /v1/models/identify": _READ,
    "POST /v1/rerank": _READ,
    "POST /v2/embed": _READ,
    "POST /v2/rerank": _READ,
}


async def authorize(request: Request) -> None:
    """Forbidden unless the table says that whoever sent the request may use its route."""
    route = f"{request.method} {request.scope['route'].path_format}"
    permission = PERMISSIONS.get(route)
    refusal = "nobody may use this route" if permission is None else permission.refusal(request.state.access)
    if refusal is not None:
        raise Forbidden(refusal)
