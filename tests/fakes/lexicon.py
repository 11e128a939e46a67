"""A lexical index in memory."""

import re
from collections import Counter
from collections.abc import Sequence

from service.core.change_feed import NOTHING_SEEN, Position, Snapshot
from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.ids import CollectionId, DocumentId
from service.core.ports.lexicon import LexiconState
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate, Suggestion
from tests.fakes.store import FakeStore

_WORD = re.compile(r"\w+")
_OPTION = re.compile(r"(?<!\S)-\w+")


class FakeLexicon:
    """Scores by the number of different query words in a document; knows no typos. Always caught up."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def search(
        self, collection: Collection, query: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        wanted, required = _words(query.text), await self._required(collection, query)
        candidates = [
            Candidate(document_id=document.id, content_revision=document.content_revision, score=float(score))
            for document in self._store.living(collection.id)
            if (score := len(wanted & _words(f"{document.title} {document.text}")))
            and (within is None or document.id in within)
            and _satisfies(document, required, query.excluded)
        ]
        return tuple(sorted(candidates, key=lambda one: -one.score)[:limit])

    async def matching_constraints(
        self, collection: Collection, query: ParsedQuery, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        living, required = self._store.living(collection.id), await self._required(collection, query)
        return frozenset(one.id for one in living if one.id in ids and _satisfies(one, required, query.excluded))

    async def unmatched_terms(self, collection: Collection, query: ParsedQuery) -> tuple[str, ...]:
        living = list(self._store.living(collection.id))
        return tuple(one for one in query.quoted if not any(_satisfies(document, [one], []) for document in living))

    async def _required(self, collection: Collection, query: ParsedQuery) -> list[str]:
        unmatched = await self.unmatched_terms(collection, query)
        return [*query.required, *(one for one in query.quoted if one not in unmatched)]

    async def options(self, collection: Collection, text: str) -> frozenset[str]:
        texts = " ".join(document.text for document in self._store.living(collection.id))
        return frozenset(word for word in _OPTION.findall(text) if f" {word}" in texts)

    async def max_score(self, collection: Collection, query: ParsedQuery) -> float:
        return float(len(_words(query.text)))

    async def document_frequencies(self, collection: Collection, query: ParsedQuery) -> tuple[int, ...]:
        texts = [_words(f"{document.title} {document.text}") for document in self._store.living(collection.id)]
        return tuple(sum(word in one for one in texts) for word in _words(query.text))

    async def score_passages(
        self, collection: Collection, query: ParsedQuery, passages: Sequence[str]
    ) -> tuple[float, ...]:
        return tuple(float(len(_words(query.text) & _words(passage))) for passage in passages)

    async def highlight(
        self, collection: Collection, query: ParsedQuery, passages: Sequence[str]
    ) -> tuple[Highlights, ...]:
        wanted = _words(query.text)
        return tuple(_highlights(passage, wanted) for passage in passages)

    async def suggest(
        self, collection: Collection, text: str, k: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Suggestion, ...]:
        """Completes the last word; knows no titles and no typos."""
        before, _, typed = text.lower().rpartition(" ")
        texts = [
            words
            for one in self._store.living(collection.id)
            if (within is None or one.id in within) and _words(before) <= (words := _words(f"{one.title} {one.text}"))
        ]
        found = Counter(word for words in texts for word in words if word.startswith(typed) and typed)
        start = text[: len(text) - len(typed)]
        return tuple(Suggestion(text=start + word, kind="word", documents=n) for word, n in found.most_common(k))

    def state(self, collection: Collection) -> LexiconState:
        return "ready"

    async def wait_until(self, collection: Collection, position: Position) -> None: ...

    def included(self, collection: Collection) -> tuple[Position, Snapshot]:
        return Position(xid=2**62), NOTHING_SEEN

    def wake(self) -> None: ...

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        return 0.0


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _satisfies(document: StoredDocument, required: Sequence[str], excluded: Sequence[str]) -> bool:
    texts = _phrase(f"{document.title} {document.text}")
    return all(_phrase(one) in texts for one in required) and not any(_phrase(one) in texts for one in excluded)


def _phrase(text: str) -> str:
    """The words of a text, each with a space on both sides."""
    return "".join(f" {word.lower()} " for word in _WORD.findall(text))


def _highlights(passage: str, wanted: set[str]) -> Highlights:
    found = [match for match in _WORD.finditer(passage) if match.group().lower() in wanted]
    return Highlights(
        fragments=tuple(f"<mark>{match.group()}</mark>" for match in found),
        spans=tuple(match.span() for match in found),
    )
