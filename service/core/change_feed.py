"""The change feed: which documents changed, in the order in which followers read them."""

from dataclasses import dataclass, field

from service.core.documents import StoredDocument
from service.core.ids import DocumentId


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Position:
    """A place in the change feed: everything up to here has been followed.

    `purged` is how far tombstones had been forgotten when this place was reached; it plays no part in the order.
    """

    xid: int = 0
    document_id: str = ""
    purged: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The present state of a document that changed; `document` is None where it was deleted."""

    position: Position
    document_id: DocumentId
    document: StoredDocument | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangePage:
    """Consecutive changes. `lag_seconds` is the age of the oldest change not yet followed (0: caught up).

    `rebuild` is True where the position asked for is older than what the feed still knows: start again from zero.
    """

    changes: tuple[Change, ...]
    lag_seconds: float
    rebuild: bool = False
