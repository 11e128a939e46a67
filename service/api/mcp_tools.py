"""What agents can do by the Model Context Protocol. Each tool is a request to a route of the HTTP API.

Import it late: the SDK takes some 25 MB of memory and .4 s of processor time.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import httpx
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.requests import Request

from service import __version__

Json = dict[str, Any]
Send = Callable[[Request | None, httpx.Request], Awaitable[httpx.Response]]
"""Sends a request to the service for the agent whose own HTTP request is the first argument; None: there was none."""

ADDRESS = "http://localhost"
INSTRUCTIONS = (
    "Azimuth searches collections of documents by meaning and by words. `list_collections` names them; `search` finds "
    "passages, `get_document` reads a whole document, and `explain` shows why documents were found. Answers whose "
    "`degraded` is not empty lack a stage, and where `confidence.in_domain` is low the collection may hold no answer."
)
DOCUMENT_CHARACTERS = 20_000
"""Of a document that an agent reads at once, whose window is small."""

Collection = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]*$", description="A name from list_collections.")]
"""Without the pattern a name could lead to another route."""
Query = Annotated[str, Field(description="A question or words, in plain language.")]
Hits = Annotated[int, Field(ge=1, le=100, description="Most documents to find.")]
Mode = Annotated[
    Literal["hybrid", "dense", "lexical"], Field(description="By meaning and words, by meaning alone, by words alone.")
]
Filter = Annotated[
    Json | None,
    Field(
        description='What must hold of the metadata: {"year": {"$gte": 2019}}; operators $eq $ne $gt $gte $lt $lte $in '
        "$nin $exists $contains, combined by $and $or $not."
    ),
]


def create_server(send: Send, *, writes: bool) -> MCPServer:
    """A server with the tools that read, and with `writes` also those that change documents."""
    server = MCPServer(
        "azimuth",
        title="Azimuth",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="ERROR",
        subscriptions=False,
    )
    reads = server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    changes = server.tool(annotations=ToolAnnotations(idempotent_hint=True, open_world_hint=False))

    async def ask(context: Context, method: str, path: str, body: Json | None = None) -> Json:
        """The JSON of the answer. ToolError has the status and the detail of a refusal, which the agent reads."""
        request = context.request_context.request
        asked = httpx.Request(method, f"{ADDRESS}{path}", json=body)
        answer = await send(request if isinstance(request, Request) else None, asked)
        content: Json = answer.json() if answer.content else {}
        if not answer.is_success:
            raise ToolError(f"{answer.status_code}: {content.get('detail', answer.reason_phrase)}")
        return content

    @reads
    async def list_collections(context: Context) -> Json:
        """The collections that can be searched, how many documents each has, and its indexed fields."""
        found = (await ask(context, "GET", "/v1/collections"))["collections"]
        return {
            "collections": [
                {
                    "name": one["name"],
                    "documents": one["counts"]["documents"],
                    "language": one["settings"]["language"],
                    "fields": [field["field"] for field in one["fields"]],
                }
                for one in found
            ]
        }

    @reads
    async def search(
        context: Context,
        collection: Collection,
        query: Query,
        k: Hits | None = 10,
        mode: Mode | None = "hybrid",
        filter: Filter = None,
        rerank: Annotated[
            bool | None, Field(description="A second model reads the best hits: slower, better.")
        ] = False,
    ) -> Json:
        """Find documents, best first, each with its passage that answers best."""
        wanted = {"query": query, "k": k, "mode": mode, "filter": filter, "rerank": rerank}
        body = {**wanted, "include": ["text", "metadata"]}
        answer = await ask(context, "POST", f"/v1/collections/{collection}/search", body)
        return {name: answer[name] for name in ("hits", "confidence", "degraded") if name in answer}

    @reads
    async def get_document(
        context: Context,
        collection: Collection,
        id: Annotated[str, Field(description="Id of a document, from a hit.")],
        start: Annotated[int, Field(ge=0, description="First character of the text to read.")] | None = 0,
    ) -> Json:
        """Title, text and metadata of a document. Of a long text a part; `next_start` is where the next one begins."""
        found = await ask(context, "POST", f"/v1/collections/{collection}/documents/fetch", {"ids": [id]})
        if not found["documents"]:
            raise ToolError(f"there is no document {id!r}")
        document = found["documents"][0]
        start = start or 0
        end, length = start + DOCUMENT_CHARACTERS, len(document["text"])
        return {**document, "text": document["text"][start:end], "next_start": end if end < length else None}

    @reads
    async def explain(
        context: Context,
        collection: Collection,
        query: Query,
        k: Hits | None = 3,
        mode: Mode | None = "hybrid",
        filter: Filter = None,
    ) -> Json:
        """How a search ran: ranks and scores of each hit by meaning and by words, plan, times, what was left out."""
        wanted = {"query": query, "k": k, "mode": mode, "filter": filter}
        return await ask(
            context, "POST", f"/v1/collections/{collection}/search", {**wanted, "explain": True, "include": []}
        )

    if writes:

        @changes
        async def write_documents(
            context: Context,
            collection: Collection,
            documents: Annotated[
                list[Json], Field(description='Each {"id", "title", "text", "metadata"}; an existing id is replaced.')
            ],
        ) -> Json:
            """Write documents. They can be found a moment later."""
            return await ask(context, "POST", f"/v1/collections/{collection}/documents", {"documents": documents})

        @changes
        async def delete_documents(context: Context, collection: Collection, ids: list[str]) -> Json:
            """Delete documents by their ids."""
            return await ask(context, "POST", f"/v1/collections/{collection}/documents/delete", {"ids": ids})

    return server
