"""What can be asked of the service. Written once, as coroutines, which `client.Client` runs without an event loop."""

import json
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Unpack, cast
from urllib.parse import quote

import httpx

from azimuth_client import shapes
from azimuth_client.errors import ApiError, Unreachable
from azimuth_client.shapes import Document, Filter, ImportedBatch, ImportResult, Json, SearchAnswer, StoredDocument

BATCH_DOCUMENTS = 500
"""Documents per request of an import: few enough that a broken connection costs little, enough to be fast."""
BATCH_BYTES = 8 * 2**20
"""A request also ends when its lines reach this size."""
PAGE, FETCH = 100, 1_000
"""Documents that are read at once, and most ids in one request."""
LONGEST_PAUSE = 60.0

Documents = Iterable[Document | bytes] | AsyncIterable[Document | bytes]
"""As dictionaries, or as lines of JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often a request is repeated at most: `busy` times after an answer with one of `statuses`, which end by
    themselves; `broken` times where the connection broke or there was none."""

    busy: int = 5
    statuses: frozenset[int] = frozenset({429, 502, 503, 504})
    broken: int = 2


class Operations(ABC):
    """The methods of both clients. Names of collections and ids are checked by the service.

    All raise ApiError where it refuses, and Unreachable where none answers.
    """

    def __init__(self, url: str, retries: Retries) -> None:
        self.url, self._retries = url, retries

    @abstractmethod
    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response: ...

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    async def call(self, method: str, path: str, /, *, repeatable: bool | None = None, **content: Any) -> Json:
        """The JSON of a 2xx answer to any request; `content` as for httpx: `json`, `params`, `content`, `headers`.

        Where the service has no room (429), the request is repeated; after a broken connection or a 5xx only where it
        is `repeatable`, that is, may arrive twice: by default what is no POST.
        """
        repeatable = method != "POST" if repeatable is None else repeatable
        retries = self._retries
        for attempt in count():
            pause = min(LONGEST_PAUSE, 0.1 * 2**attempt)
            try:
                response = await self._send(method, path, **content)
            except httpx.TransportError as error:
                may = repeatable or isinstance(error, httpx.ConnectError)
                if not may or attempt >= retries.broken:
                    raise Unreachable(f"no service answers at {self.url} ({error})") from error
            else:
                may = response.status_code in retries.statuses and (repeatable or response.status_code == 429)
                if not may or attempt >= retries.busy:
                    break
                pause = _retry_after(response, pause)
            await self._sleep(pause * random.uniform(1.0, 1.25))  # noqa: S311  no secret
        if not response.is_success:
            raise ApiError(response)
        answer: Json = response.json() if response.content else {}
        return answer

    async def alive(self, path: str = "/livez") -> bool:
        """Whether the service answers at all."""
        try:
            return (await self._send("GET", path, timeout=5.0)).is_success
        except httpx.TransportError:
            return False

    async def ready(self) -> bool:
        """Whether it can search and write."""
        return await self.alive("/readyz")

    async def collections(self) -> list[shapes.Collection]:
        return cast(list[shapes.Collection], (await self.call("GET", "/v1/collections"))["collections"])

    async def collection(self, collection: str) -> shapes.Collection:
        """Settings, counts and versions."""
        return cast(shapes.Collection, await self.call("GET", _path(collection)))

    async def put_collection(self, collection: str, settings: Mapping[str, Any] | None = None) -> shapes.Collection:
        """Create it, or change the settings that are given."""
        return cast(shapes.Collection, await self.call("PUT", _path(collection), json=dict(settings or {})))

    async def ensure_collection(self, collection: str, settings: Mapping[str, Any] | None = None) -> shapes.Collection:
        """The collection; it is created with `settings` if it does not exist, and left unchanged if it does."""
        try:
            return await self.collection(collection)
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            return await self.put_collection(collection, settings)

    async def delete_collection(self, collection: str) -> None:
        """With everything in it."""
        await self.call("DELETE", _path(collection), params={"confirm": collection})

    async def write(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        wait: bool = False,
        if_exists: Literal["replace", "fail", "skip"] = "replace",
        generate_ids: bool = False,
    ) -> shapes.Written:
        """Write all of them or none. `wait`: return when they can be found. Many documents: `import_documents`."""
        params = {"wait": wait, "if_exists": if_exists, "generate_ids": generate_ids}
        body = {"documents": list(documents)}
        repeatable = not generate_ids and if_exists != "fail"
        path = f"{_path(collection)}/documents"
        return cast(shapes.Written, await self.call("POST", path, params=params, json=body, repeatable=repeatable))

    async def import_batches(self, collection: str, documents: Documents) -> AsyncIterator[ImportedBatch]:
        """Send any number of documents, some at a time, and tell what became of them after each commit."""
        held: list[bytes] = []
        size = sent = 0
        async for document in _each(documents):
            line = document if isinstance(document, bytes) else ndjson(document)
            held.append(line if line.endswith(b"\n") else line + b"\n")
            size += len(line)
            if len(held) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
                yield await self._send_lines(collection, held, sent)
                sent += len(held)
                held, size = [], 0
        if held:
            yield await self._send_lines(collection, held, sent)

    async def _send_lines(self, collection: str, lines: list[bytes], before: int) -> ImportedBatch:
        headers, body = {"Content-Type": "application/x-ndjson"}, b"".join(lines)
        path = f"{_path(collection)}/documents"
        outcome = await self.call("POST", path, content=body, headers=headers, repeatable=True)
        errors = [{**error, "line": error["line"] + before} for error in outcome.get("errors", ())]
        return cast(ImportedBatch, {**outcome, "errors": errors, "lines": len(lines)})

    async def import_documents(
        self,
        collection: str,
        documents: Documents,
        *,
        wait: bool = False,
        progress: Callable[[ImportResult], None] = lambda _: None,
    ) -> ImportResult:
        """Send any number of documents; those that are refused do not stop the others. `progress`: after each commit.

        `wait`: return when no document of the collection waits to become searchable.
        """
        result = ImportResult()
        async for batch in self.import_batches(collection, documents):
            result.sent += batch["lines"]
            for name in ("created", "updated", "unchanged"):
                setattr(result, name, getattr(result, name) + batch[name])
            result.errors += batch["errors"]
            progress(result)
        while wait:
            state = await self.collection(collection)
            wait = bool(state["counts"]["pending"]) or state["lexical_lag_seconds"] != 0
            if wait:
                await self._sleep(0.2)
        return result

    async def get(self, collection: str, id: str) -> StoredDocument:
        path = f"{_path(collection)}/documents/{quote(id, safe='')}"
        return cast(StoredDocument, await self.call("GET", path))

    async def fetch(
        self, collection: str, ids: Sequence[str], *, include: Sequence[str] = ("text", "metadata")
    ) -> list[StoredDocument]:
        """Those of the documents that exist, in the order of the ids."""
        found: list[StoredDocument] = []
        for at in range(0, len(ids), FETCH):
            body = {"ids": list(ids[at : at + FETCH]), "include": list(include)}
            answer = await self.call("POST", f"{_path(collection)}/documents/fetch", json=body, repeatable=True)
            found += answer["documents"]
        return found

    async def _listed(self, collection: str, kind: str, params: Json) -> AsyncIterator[Any]:
        """What the pages of a collection's listing hold."""
        while True:
            page = await self.call("GET", f"{_path(collection)}/{kind}", params=params)
            for one in page[kind]:
                yield one
            if page["next_cursor"] is None:
                return
            params = {**params, "cursor": page["next_cursor"]}

    async def documents(
        self, collection: str, filter: Filter | None = None, *, include: Sequence[str] = ("text", "metadata")
    ) -> AsyncIterator[StoredDocument]:
        """All documents that pass the filter, ordered by id, read page by page."""
        params = {"limit": PAGE, "include": list(include), "filter": json.dumps(filter or {})}
        async for document in self._listed(collection, "documents", params):
            yield document

    async def count(self, collection: str, filter: Filter | None = None) -> int:
        """How many documents pass the filter, exactly."""
        body = {"filter": filter or {}}
        answer = await self.call("POST", f"{_path(collection)}/count", json=body, repeatable=True)
        return int(answer["count"])

    async def patch(self, collection: str, id: str, changes: Mapping[str, Any]) -> Json:
        """Change title, text or metadata by a JSON merge patch: objects are merged, None removes."""
        return await self.call("PATCH", f"{_path(collection)}/documents/{quote(id, safe='')}", json=dict(changes))

    async def delete(
        self, collection: str, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> shapes.Deleted:
        """Delete documents by their ids, or those that pass a filter."""
        path, deleted, missing = f"{_path(collection)}/documents/delete", 0, list[str]()
        if ids is None:
            return cast(shapes.Deleted, await self.call("POST", path, json={"filter": filter}, repeatable=True))
        for at in range(0, len(ids), FETCH):
            answer = await self.call("POST", path, json={"ids": list(ids[at : at + FETCH])}, repeatable=True)
            deleted, missing = deleted + answer["deleted"], missing + answer["missing"]
        return {"deleted": deleted, "missing": missing}

    async def delete_all(self, collection: str) -> shapes.Deleted:
        """Delete all documents; the collection stays."""
        path = f"{_path(collection)}/documents/delete"
        params = {"confirm": collection}
        return cast(shapes.Deleted, await self.call("POST", path, json={"all": True}, params=params, repeatable=True))

    async def search(
        self, collection: str, query: str | Mapping[str, Any] | None = None, **options: Unpack[shapes.SearchOptions]
    ) -> SearchAnswer:
        """`query`: a text, or the whole body of a search as the API reference has it; None: with `vector` or `like`."""
        body = _search_body(query, options)
        return cast(SearchAnswer, await self.call("POST", f"{_path(collection)}/search", json=body, repeatable=True))

    async def search_batch(self, collection: str, searches: Sequence[str | Mapping[str, Any]]) -> list[SearchAnswer]:
        """Several searches in one request; texts that they share are encoded once."""
        body = {"searches": [_search_body(one, {}) for one in searches]}
        answer = await self.call("POST", f"{_path(collection)}/search/batch", json=body, repeatable=True)
        return cast(list[SearchAnswer], answer["results"])

    async def similar(self, collection: str, id: str, *, k: int = 10, filter: Filter | None = None) -> list[shapes.Hit]:
        """Documents that are similar to one document."""
        path = f"{_path(collection)}/similar/{quote(id, safe='')}"
        answer = await self.call("POST", path, json={"k": k, "filter": filter}, repeatable=True)
        return cast(list[shapes.Hit], answer["hits"])

    async def mark(
        self, collection: str, query: str, *, answered: bool, documents: Sequence[str] = ()
    ) -> shapes.MarkedQuery:
        """Say whether a query was answered, and by which documents. The newest mark of a query counts."""
        body = {"query": query, "answered": answered, "documents": list(documents)}
        answer = await self.call("POST", f"{_path(collection)}/feedback", json=body, repeatable=True)
        return cast(shapes.MarkedQuery, answer)

    async def feedback(self, collection: str) -> AsyncIterator[shapes.MarkedQuery]:
        """All marked queries, read page by page."""
        async for marked in self._listed(collection, "feedback", {"limit": FETCH}):
            yield marked

    async def suggest(
        self, collection: str, query: str, *, k: int = 8, filter: Filter | None = None
    ) -> list[shapes.Suggestion]:
        """How a text that is being typed may go on."""
        body = {"query": query, "k": k, "filter": filter}
        answer = await self.call("POST", f"{_path(collection)}/suggest", json=body, repeatable=True)
        return cast(list[shapes.Suggestion], answer["suggestions"])

    async def embed(self, texts: Sequence[str], *, model: str = "default", query: bool = False) -> list[list[float]]:
        body = {"input": list(texts), "model": model, "input_type": "query" if query else "document"}
        answer = await self.call("POST", "/v1/embeddings", json=body, repeatable=True)
        return [one["embedding"] for one in answer["data"]]

    async def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[Json]:
        """`index` and `relevance_score` of the documents, best first."""
        body = {"query": query, "documents": list(documents)} | ({} if top_n is None else {"top_n": top_n})
        return cast(list[Json], (await self.call("POST", "/rerank", json=body, repeatable=True))["results"])

    async def keys(self) -> list[shapes.Key]:
        """The API keys, also those that have ended. All about keys is for administrators."""
        return cast(list[shapes.Key], (await self.call("GET", "/v1/keys"))["keys"])

    async def create_key(self, **settings: Unpack[shapes.KeySettings]) -> shapes.NewKey:
        """The answer has the `secret`, this once. The first key must be an administrator's."""
        return cast(shapes.NewKey, await self.call("POST", "/v1/keys", json=dict(settings)))

    async def rotate_key(self, id: str, *, overlap: str = "1h") -> shapes.NewKey:
        """Give it another secret; the former one works for `overlap` more (`"0"`: not at all)."""
        path = f"/v1/keys/{quote(id, safe='')}/rotate"
        return cast(shapes.NewKey, await self.call("POST", path, json={"overlap": overlap}))

    async def revoke_key(self, id: str) -> None:
        await self.call("DELETE", f"/v1/keys/{quote(id, safe='')}")


def ndjson(value: Mapping[str, Any]) -> bytes:
    """A line of JSON."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _path(collection: str) -> str:
    return f"/v1/collections/{quote(collection, safe='')}"


def _search_body(query: str | Mapping[str, Any] | None, options: Mapping[str, Any]) -> Json:
    asked = query if isinstance(query, Mapping) else {} if query is None else {"query": query}
    return {**asked, **options}


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    try:
        return min(LONGEST_PAUSE, max(0.0, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):  # without it, or a date
        return otherwise


async def _each(documents: Documents) -> AsyncIterator[Document | bytes]:
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield document
    else:
        for document in documents:
            yield document
