from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from service.core.change_feed import Position, Snapshot
from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.ids import CollectionId, DocumentId
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate, Suggestion

LexiconState = Literal["ready", "rebuilding", "building"]
"""`rebuilding`: the former index (of another language, or a damaged one) answers until the new one is complete."""


class Lexicon(Protocol):
    """BM25 over whole documents (title and text). Its scores are unbounded and at least 0."""

    async def search(
        self, collection: Collection, query: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        """Up to `limit` best documents of those that satisfy the constraints of the query."""

    async def matching_constraints(
        self, collection: Collection, query: ParsedQuery, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        """Those of `ids` that satisfy the constraints of the query."""

    async def unmatched_terms(self, collection: Collection, query: ParsedQuery) -> tuple[str, ...]:
        """The quoted phrases that no document contains, and that are therefore no constraint."""

    async def options(self, collection: Collection, text: str) -> frozenset[str]:
        """Of the exclusions in a query (`-jar`) those that belong to the text: documents write the hyphen, too."""

    async def max_score(self, collection: Collection, query: ParsedQuery) -> float:
        """The highest score that any document could have for this query, unknown terms included."""

    async def document_frequencies(self, collection: Collection, query: ParsedQuery) -> tuple[int, ...]:
        """The number of documents with each distinct term; deleted documents may count for a while."""

    async def score_passages(
        self, collection: Collection, query: ParsedQuery, passages: Sequence[str]
    ) -> tuple[float, ...]:
        """How much each passage says of what the query asks: at least 0, comparable within one call."""

    async def highlight(
        self, collection: Collection, query: ParsedQuery, passages: Sequence[str]
    ) -> tuple[Highlights, ...]:
        """The matches of the query in each passage."""

    async def suggest(
        self, collection: Collection, text: str, k: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Suggestion, ...]:
        """Completions of a text that is being typed, by the documents that have them; only words of `within`."""

    def state(self, collection: Collection) -> LexiconState: ...

    async def wait_until(self, collection: Collection, position: Position) -> None:
        """Return when lexical search sees everything up to `position`. The caller sets the timeout."""

    def included(self, collection: Collection) -> tuple[Position, Snapshot]:
        """What searches see of the change feed: all up to the position, and all that the snapshot includes."""

    def wake(self) -> None:
        """Read the change feed now rather than at the next turn: something was just committed."""

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        """The age of the oldest committed change that is not indexed yet; None before the feed was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TermCounts:
    """The terms of a document with their frequencies, for exact scores. `length`: the number of all terms."""

    document_id: DocumentId
    content_revision: int
    counts: Mapping[str, int]
    length: int


class ExactBM25(Protocol):
    """Reference implementation of BM25: every document is scored, and no length is rounded."""

    async def term_counts(
        self, collection: Collection, documents: Sequence[StoredDocument]
    ) -> tuple[TermCounts, ...]: ...

    async def exact_scores(
        self, collection: Collection, query: ParsedQuery, documents: Sequence[TermCounts]
    ) -> tuple[float, ...]:
        """The score of each document, 0 where it has no term of the query. Statistics of terms are the collection's."""
