"""A change feed in a file: what the lexical follower needs of the database, small enough to be obviously right."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from service.core.change_feed import NOTHING_SEEN, Change, ChangePage, IndexMark, Position, Snapshot
from service.core.collections import Collection, CollectionSettings
from service.core.documents import StoredDocument
from service.core.ids import CollectionId, CollectionName, DocumentId, VersionNumber
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.index import LexicalIndex
from service.store.lexical.indexer import Indexer

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def collection(number: int = 1, name: str = "papers", language: str = "en", created_at: datetime = NOW) -> Collection:
    return Collection(
        id=CollectionId(number),
        name=CollectionName(name),
        settings=CollectionSettings(language=language),
        active_version=VersionNumber(1),
        created_at=created_at,
    )


def stored_document(name: str, text: str, revision: int = 1, title: str = "") -> StoredDocument:
    revisions: dict[str, Any] = {"revision": revision, "content_revision": revision}
    return StoredDocument(
        id=DocumentId(name), title=title, text=text, metadata={}, created_at=NOW, updated_at=NOW, **revisions
    )


class Line(TypedDict):
    """One write to one document; no text where it was deleted."""

    collection: int
    id: str
    text: str | None


class FileFeed:
    """`Listing` and `FollowedChanges` of the follower over one file of JSON lines; a line's number is its transaction.

    Every process that opens the file sees the same feed. `rebuild_before` plays a purge: who stands before it, and not
    at the very beginning, is told to start again.
    """

    def __init__(self, path: Path, *collections: Collection) -> None:
        self.path = path
        self.collections = list(collections or (collection(),))
        self.rebuild_before = 0
        path.touch()

    def write(self, *documents: tuple[str, str] | str, collection_id: int = 1) -> Position:
        """Put (id, text) pairs, delete bare ids. Answers the position of the last."""
        with self.path.open("a", encoding="utf-8") as file:
            for document in documents:
                name, text = (document, None) if isinstance(document, str) else document
                file.write(json.dumps({"collection": collection_id, "id": name, "text": text}) + "\n")
        *_, last = self._lines()
        return Position(xid=last[0], document_id=last[1]["id"])

    def live(self, collection_id: int = 1) -> dict[str, int]:
        """Document -> content revision, as committed."""
        latest = self._latest(collection_id)
        return {name: number for name, (number, line) in latest.items() if line["text"] is not None}

    async def all(self) -> tuple[Collection, ...]:
        return tuple(self.collections)

    async def ahead(
        self, collection_id: CollectionId, seen: Snapshot, position: Position, limit: int
    ) -> tuple[tuple[Change, ...], Snapshot, bool]:
        raise AssertionError("no transaction is ever open here")

    async def after(
        self,
        collection_id: CollectionId,
        position: Position,
        limit: int,
        now: datetime,
        seen: Snapshot = NOTHING_SEEN,
        mark: IndexMark | None = None,
    ) -> ChangePage:
        if Position() < position < Position(xid=self.rebuild_before):
            return ChangePage(changes=(), lag_seconds=1.0, rebuild=True)
        changes = sorted(
            (self._change(number, line) for number, line in self._latest(collection_id).values()),
            key=lambda change: change.position,
        )
        waiting = [change for change in changes if change.position > position]
        return ChangePage(changes=tuple(waiting[:limit]), lag_seconds=float(bool(waiting)))

    async def newest(self) -> Mapping[CollectionId, int]:
        return {CollectionId(line["collection"]): number for number, line in self._lines()}

    async def mark(self, collection_id: CollectionId, mark: IndexMark, now: datetime) -> str | None:
        return "known"

    def _latest(self, collection_id: int) -> dict[str, tuple[int, Line]]:
        return {line["id"]: (number, line) for number, line in self._lines() if line["collection"] == collection_id}

    def _lines(self) -> list[tuple[int, Line]]:
        with self.path.open(encoding="utf-8") as file:
            whole = [line for line in file if line.endswith("\n")]
        return [(number, json.loads(line)) for number, line in enumerate(whole, start=1)]

    def _change(self, number: int, line: Line) -> Change:
        name, text = DocumentId(line["id"]), line["text"]
        document = None if text is None else stored_document(name, text, number)
        return Change(position=Position(xid=number, document_id=name), document_id=name, document=document)


def index_of(folder: Path, texts: Mapping[str, str], language: str) -> LexicalIndex:
    """An index of these texts by their names, complete."""
    feed = FileFeed(folder / "feed", collection())
    feed.write(*texts.items())
    page = asyncio.run(feed.after(feed.collections[0].id, Position(), 1_000, NOW))
    indexer = Indexer(folder / "index", analyzer_for(language))
    indexer.apply(page.changes)
    indexer.commit(caught_up=True)
    indexer.release_writer()
    return LexicalIndex(indexer.path, analyzer_for(language))
