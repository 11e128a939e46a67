"""The change feed: which documents changed, in the order in which followers read them."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from service.core.documents import StoredDocument
from service.core.ids import DocumentId


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Position:
    """A place in the change feed, up to which everything has been read.

    `purged`: the position up to which tombstones had been purged then; it does not count for the order.
    """

    xid: int = 0
    document_id: str = ""
    purged: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The transactions that had ended at a moment: those below `xmax`, but for the `running` ones."""

    xmax: int = 0
    running: tuple[int, ...] = ()

    def includes(self, xid: int) -> bool:
        return xid < self.xmax and xid not in self.running


NOTHING_SEEN = Snapshot()


@dataclass(slots=True, eq=False)
class WrittenRevision:
    """The last transaction in which a request wrote documents; 0: it wrote none. Clients compare it as a number."""

    revision: int = 0


WRITTEN: ContextVar[WrittenRevision | None] = ContextVar("written", default=None)
"""Of the request at hand, shared by all of its tasks."""


def record_revision(revision: int) -> None:
    """Tell the request at hand that it writes in this transaction."""
    if (written := WRITTEN.get()) is not None:
        written.revision = max(written.revision, revision)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexMark:
    """Ties an index to the database that it was read from: `token` was written there after all that the index contains.

    A database that lost any of it, because an older state was restored or a replica took over, lost the token as well.
    `generation`: of the index. No token: nothing was read yet.
    """

    generation: str
    token: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The current state of a document that changed; `document` is None where it was deleted."""

    position: Position
    document_id: DocumentId
    document: StoredDocument | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangePage:
    """Consecutive changes. `lag_seconds`: the age of the oldest change that was not read (0: caught up).

    `rebuild` is True where the position is older than what the feed still contains, or was reached in another state of
    the database: start again from zero. `cut`: more follow, left out of this page because together they are too large.
    `ahead`: further changes are committed, and come after a transaction that still runs (`ChangeFeed.ahead`).
    """

    changes: tuple[Change, ...]
    lag_seconds: float
    rebuild: bool = False
    cut: bool = False
    ahead: bool = False
