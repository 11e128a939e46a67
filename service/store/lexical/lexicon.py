"""The lexical leg: BM25 over whole documents, on local disk, one directory for each collection and analyzer.

This is the reading side, the same in every process; `follower.py` keeps the directories in step with the change feed.
Where the language of a collection changes, the index of the former language continues to answer and to be followed
until the new one is complete.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from service.core.change_feed import NOTHING_SEEN, Position, Snapshot
from service.core.collections import Collection
from service.core.concurrency import set_within
from service.core.documents import StoredDocument
from service.core.errors import LexiconUnavailable, Misconfigured, raised_as
from service.core.ids import CollectionId, DocumentId
from service.core.ports.lexicon import LexiconState, TermCounts
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate, Suggestion
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.index import LexicalIndex, term_counts
from service.store.lexical.languages import KNOWN
from service.store.lexical.progress import IndexProgress, is_damaged, read_progress
from service.store.lexical.query import LexicalQuery

T = TypeVar("T")

_YOUNG_SECONDS = 5.0
"""A collection without a complete index is empty when it is younger than this, and rebuilt when it is older."""

_VERIFY_PAUSE = 100.0
"""After the files of an index were read, a pause of so many times as long."""

_TRUSTED_SECONDS = 10.0
"""How long a lag of 0 is believed after the last check of the change feed."""


class TantivyLexicon:
    """The Lexicon port. `root` holds the indexes of all installations; `installation` identifies the database.

    Misconfigured where the folder cannot be made.
    """

    def __init__(
        self,
        root: Path,
        installation: UUID,
        *,
        threads: int = 4,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.directory = root / str(installation)
        with raised_as(Misconfigured, "The folder of the lexical indexes cannot be made", OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
        self._now = now
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lexical")
        self._indexes: dict[Path, LexicalIndex] = {}
        self._path = lru_cache(maxsize=1024)(lambda id_, of: self.directory / f"{id_}-{analyzer_for(of).version}")
        self._refreshed = asyncio.Condition()
        self._waiting: Counter[CollectionId] = Counter()
        self._lags: dict[Path, tuple[CollectionId, float, float]] = {}
        self._wake = asyncio.Event()

    async def search(
        self, collection: Collection, query: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        if limit < 1 or (within is not None and not within):
            return ()
        return await self._query(collection, lambda index: tuple(index.search(query, limit, within)), ())

    async def matching_constraints(
        self, collection: Collection, query: ParsedQuery, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        return await self._query(collection, lambda index: index.matching_constraints(query, ids), frozenset())

    async def unmatched_terms(self, collection: Collection, query: ParsedQuery) -> tuple[str, ...]:
        return await self._query(collection, lambda index: index.evaluate(query, LexicalQuery.unmatched_terms), ())

    async def options(self, collection: Collection, text: str) -> frozenset[str]:
        query = ParsedQuery(text=text)
        return await self._query(collection, lambda index: index.evaluate(query, LexicalQuery.options), frozenset())

    async def max_score(self, collection: Collection, query: ParsedQuery) -> float:
        return await self._query(collection, lambda index: index.evaluate(query, LexicalQuery.max_score), 0.0)

    async def term_counts(self, collection: Collection, documents: Sequence[StoredDocument]) -> tuple[TermCounts, ...]:
        """Of the documents as they are, not of what the index holds of them."""
        analyzer = analyzer_for(collection.settings.language)
        return tuple(await self._in_thread(lambda: [term_counts(analyzer, document) for document in documents]))

    async def exact_scores(
        self, collection: Collection, query: ParsedQuery, bags: Sequence[TermCounts]
    ) -> tuple[float, ...]:
        return await self._query(collection, lambda index: index.exact_scores(query, bags), (0.0,) * len(bags))

    async def document_frequencies(self, collection: Collection, query: ParsedQuery) -> tuple[int, ...]:
        return await self._query(collection, lambda index: index.evaluate(query, LexicalQuery.document_frequencies), ())

    async def score_passages(
        self, collection: Collection, query: ParsedQuery, passages: Sequence[str]
    ) -> tuple[float, ...]:
        zeros = (0.0,) * len(passages)
        return await self._query(collection, lambda index: index.score_passages(query, passages), zeros)

    async def highlight(
        self, collection: Collection, query: ParsedQuery, passages: Sequence[str]
    ) -> tuple[Highlights, ...]:
        empty = [Highlights() for _ in passages]
        return tuple(await self._query(collection, lambda index: index.highlight(query, passages), empty))

    async def suggest(
        self, collection: Collection, text: str, k: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Suggestion, ...]:
        return tuple(await self._query(collection, lambda index: index.suggest(text, k, within), []))

    def state(self, collection: Collection) -> LexiconState:
        if self.is_current(collection):
            return "rebuilding" if self._indexes[self.path(collection)].damaged else "ready"
        return "rebuilding" if self.is_searchable(collection) else "building"

    async def wait_until(self, collection: Collection, position: Position) -> None:
        def reached() -> bool:
            index = self._complete_index(collection)
            return index is not None and index.progress.includes(position)

        self._waiting[collection.id] += 1
        self._wake.set()
        try:
            async with self._refreshed:
                await self._refreshed.wait_for(reached)
        finally:
            self._waiting -= Counter([collection.id])  # without those that nobody waits for any more

    def included(self, collection: Collection) -> tuple[Position, Snapshot]:
        index = self._complete_index(collection)
        return (Position(), NOTHING_SEEN) if index is None else (index.progress.position, index.progress.seen)

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        """An upper bound: the lag at the last check, plus the time since. The largest where there are two indexes."""
        lags = [(lag, time.monotonic() - at) for of, lag, at in self._lags.values() if of == collection_id]
        return max((lag + since if lag > 0 or since > _TRUSTED_SECONDS else 0.0 for lag, since in lags), default=None)

    async def verify(self) -> None:
        """Read the files of all open indexes, in a hundredth of the time; the follower builds damaged ones anew."""
        for index in list(self._indexes.values()):
            started = time.monotonic()
            await self._in_thread(index.verify)
            await asyncio.sleep(_VERIFY_PAUSE * (time.monotonic() - started))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)

    def path(self, collection: Collection) -> Path:
        return self._path(collection.id, collection.settings.language)

    def visible_progress(self, collection: Collection) -> IndexProgress:
        """What searches of this process see; the very beginning where there is no index."""
        index = self._indexes.get(self.path(collection))
        return index.progress if index else IndexProgress(generation="", position=Position())

    def is_current(self, collection: Collection) -> bool:
        """Whether the index in its present language is complete."""
        index = self._indexes.get(self.path(collection))
        return index is not None and index.progress.complete

    def is_searchable(self, collection: Collection) -> bool:
        """Whether an index is complete, be it in the former language."""
        return self._complete_index(collection) is not None

    def in_former_language(self, collection: Collection) -> Collection | None:
        """The collection with the language of its newest complete index of another language; None: there is none."""
        found: list[tuple[float, Collection]] = []
        for path in self.directory.glob(f"{collection.id}-*"):
            _, language, *_ = path.name.split("-")
            if language in KNOWN and language != collection.settings.language and not is_damaged(path):
                former = replace(collection, settings=replace(collection.settings, language=language))
                progress = read_progress(path)
                # Another path: the index was made by another version of the analyzer.
                if path == self.path(former) and progress is not None and progress.complete:
                    found.append((path.stat().st_mtime, former))
        return max(found, key=lambda one: one[0])[1] if found else None

    def waiting_collections(self) -> set[CollectionId]:
        """The collections of which somebody waits for a position (`wait_until`)."""
        return set(self._waiting)

    def wake(self) -> None:
        """Wake the follower: it processes what is due, and at once what somebody waits for."""
        self._wake.set()

    async def wait_for_wake(self, seconds: float) -> None:
        """Return at the next `wake`, or after so long."""
        await set_within(self._wake, seconds)
        self._wake.clear()

    async def refresh(self, collection: Collection) -> None:
        """Show what the writer, in whatever process, has committed meanwhile, and wake whoever waited for it."""
        index = self._indexes.get(self.path(collection))
        if index is not None and not index.stale():
            return
        try:
            await (self._open(collection) if index is None else self._in_thread(index.refresh))
        except LexiconUnavailable:
            self._indexes.pop(self.path(collection), None)
            return
        async with self._refreshed:
            self._refreshed.notify_all()

    def refuse(self, collection: Collection) -> None:
        """Search its index no more until it was built anew: the database does not know it."""
        if (index := self._indexes.get(self.path(collection))) is not None:
            index.foreign = True

    def record_lag(self, collection: Collection, lag_seconds: float) -> None:
        """The change feed was checked just now, with this result."""
        self._lags[self.path(collection)] = (collection.id, lag_seconds, time.monotonic())

    def retain(self, collections: Iterable[Collection]) -> None:
        """Forget the indexes of all other collections."""
        paths = {self.path(collection) for collection in collections}
        self._indexes = {path: index for path, index in self._indexes.items() if path in paths}
        self._lags = {path: lag for path, lag in self._lags.items() if path in paths}

    async def _query(self, collection: Collection, work: Callable[[LexicalIndex], T], empty: T) -> T:
        """The result of `work` in a thread; `empty` where the collection is so new that its index must be empty."""
        index = await self._searched_index(collection)
        if index is None:
            return empty
        index.use_synonyms(collection.settings.synonyms)
        return await self._in_thread(lambda: work(index))

    def _complete_index(self, collection: Collection) -> LexicalIndex | None:
        """The index of the collection's language or, until that is complete, of the former one."""
        index = self._indexes.get(self.path(collection))
        if index is not None and index.progress.complete:
            return index
        prefix = f"{collection.id}-"
        others = (index for path, index in reversed(self._indexes.items()) if path.name.startswith(prefix))
        return next((index for index in others if index.progress.complete), None)

    async def _searched_index(self, collection: Collection) -> LexicalIndex | None:
        """None where the collection is so new that nothing can be in it yet."""
        complete = self._complete_index(collection)
        try:
            index = complete or self._indexes.get(self.path(collection)) or await self._open(collection)
            if index.progress.complete:
                return index
            raise LexiconUnavailable("The lexical index is being built.")
        except LexiconUnavailable:
            if former := self.in_former_language(collection):
                return await self._open(former)
            if (self._now() - collection.created_at).total_seconds() < _YOUNG_SECONDS:
                return None
            raise

    async def _open(self, collection: Collection) -> LexicalIndex:
        path, analyzer = self.path(collection), analyzer_for(collection.settings.language)
        index = await self._in_thread(lambda: LexicalIndex(path, analyzer))
        return self._indexes.setdefault(path, index)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
