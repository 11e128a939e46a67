from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from service.core.change_feed import NOTHING_SEEN, Change, ChangePage, IndexMark, Position, Snapshot
from service.core.ids import CollectionId, DocumentId


class FollowedChanges(Protocol):
    """The changes of a collection, as an index follows them: each document once, at its latest one. Late commits are
    never skipped."""

    async def after(
        self,
        collection_id: CollectionId,
        position: Position,
        limit: int,
        now: datetime,
        seen: Snapshot = NOTHING_SEEN,
        mark: IndexMark | None = None,
    ) -> ChangePage:
        """The next changes, at most `limit`; continue with the position of the last one. CollectionNotFound.

        Of large documents a page has fewer (`ChangePage.cut`).
        A change is among them once all older transactions of the server have ended, whatever they do. `seen`: of the
        changes that were read ahead, for the lag. `mark`: of the index that holds all this.
        """

    async def newest(self) -> Mapping[CollectionId, int]:
        """The transaction of the newest change of each collection that has one. Later changes have another, unless
        `ChangePage.ahead` told of a transaction that was open."""

    async def mark(self, collection_id: CollectionId, mark: IndexMark, now: datetime) -> str | None:
        """The next token of this index, to be kept with what was read before; None where it has to be rebuilt."""

    async def ahead(
        self, collection_id: CollectionId, seen: Snapshot, position: Position, limit: int
    ) -> tuple[tuple[Change, ...], Snapshot, bool]:
        """Up to `limit` committed changes after `position` that are not `seen`, the transactions that have ended, and
        whether more was left out as in `ChangePage.cut`.

        Those that come after a running transaction come again in `after`, once it has ended.
        """


class ChangeFeed(FollowedChanges, Protocol):
    async def last_missing(
        self, collection_id: CollectionId, revision: int, position: Position, seen: Snapshot
    ) -> Position | None:
        """The last change in a transaction up to `revision` that lies after the position and was not `seen`.

        None where there is none: whoever has read so far has all that was committed up to `revision` and that was not
        replaced since. NotFound where the database has never had such a transaction: an older state was restored.
        """

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        """The last position of these documents' changes."""
