"""Port of the lexical index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from service.core.change_feed import Position
from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.ids import CollectionId, DocumentId
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate

LexiconState = Literal["ready", "rebuilding", "building"]
"""Of a collection's lexical index. `rebuilding`: that of its former language answers until the new one is complete."""


class Lexicon(Protocol):
    """BM25 over whole documents (title and text). Its scores are unbounded and at least 0."""

    async def search(
        self, collection: Collection, words: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        """Up to `limit` best documents, of those that fulfil the wishes."""
        ...

    async def matching_constraints(
        self, collection: Collection, words: ParsedQuery, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        """Those of `ids` that fulfil the wishes."""
        ...

    async def unmatched_terms(self, collection: Collection, words: ParsedQuery) -> tuple[str, ...]:
        """The quoted phrases that no document says, and that bind nobody therefore."""
        ...

    async def max_score(self, collection: Collection, words: ParsedQuery) -> float:
        """The highest score that any document could have for these words, those that no document says included."""
        ...

    async def document_frequencies(self, collection: Collection, words: ParsedQuery) -> tuple[int, ...]:
        """For each different word that is looked for, how many documents say it; deleted ones may count for a while."""
        ...

    async def highlight(
        self, collection: Collection, words: ParsedQuery, passages: Sequence[str]
    ) -> tuple[Highlights, ...]:
        """Where each passage says what is looked for."""
        ...

    def state(self, collection: Collection) -> LexiconState: ...

    async def wait_until(self, collection: Collection, position: Position) -> None:
        """Return when lexical search sees everything up to `position`. The caller sets the limit of time."""
        ...

    def wake(self) -> None:
        """Something was just committed here: look at the change feed now rather than at the next turn."""
        ...

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        """Age of the oldest committed change that cannot be found yet; None before the first look."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TermCounts:
    """What a document says, for exact scores: how often each of its terms, and how many terms it has."""

    document_id: DocumentId
    content_revision: int
    counts: Mapping[str, int]
    length: int


class ExactBM25(Protocol):
    """What BM25 gives documents where every one is looked at and nothing is rounded."""

    async def term_counts(
        self, collection: Collection, documents: Sequence[StoredDocument]
    ) -> tuple[TermCounts, ...]: ...

    async def exact_scores(
        self, collection: Collection, words: ParsedQuery, bags: Sequence[TermCounts]
    ) -> tuple[float, ...]:
        """The score of each, 0 where it has none of the words. The statistics of terms are those of the collection."""
        ...
