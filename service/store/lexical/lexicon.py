"""The lexical leg: BM25 over whole documents, on local disk, one directory for each collection and analyzer.

This is the reading side, and it is the same in every process. `follower.py` keeps the directories true to the change
feed: in one process it writes them, in the others it only looks when they changed.

Where a collection gets another language, the index of the former one goes on answering, as it did before, and goes on
being followed, until the new one is complete.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from service.core.change_feed import Position
from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.errors import LexiconUnavailable, Misconfigured
from service.core.ids import CollectionId, DocumentId
from service.core.ports.lexicon import LexiconState, TermCounts
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.index import LexicalIndex, bag, is_damaged, read_progress
from service.store.lexical.languages import KNOWN

T = TypeVar("T")

_YOUNG_SECONDS = 5.0
"""A collection without an index is empty when it is younger than this, and being rebuilt when it is older."""

_TRUST_SECONDS = 10.0
"""How long "nothing is waiting" is believed after the last look at the change feed."""


class TantivyLexicon:
    """The Lexicon port. `root` holds the indexes of all installations; `installation` names the database.

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
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"The folder of the lexical indexes cannot be made: {error}") from error
        self._now = now
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lexical")
        self._indexes: dict[Path, LexicalIndex] = {}
        self._advanced = asyncio.Condition()
        self._waiting: Counter[CollectionId] = Counter()
        self._looked: dict[Path, tuple[CollectionId, float, float]] = {}
        self._nudge = asyncio.Event()

    async def search(
        self, collection: Collection, words: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        if limit < 1 or (within is not None and not within):
            return ()
        index = await self._index(collection)
        if index is None:
            return ()
        matches = await self._in_thread(lambda: index.search(words, limit, within))
        return tuple(
            Candidate(document_id=document_id, content_revision=content_revision, score=score)
            for document_id, content_revision, score in matches
        )

    async def matching_constraints(
        self, collection: Collection, words: ParsedQuery, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        index = await self._index(collection)
        return frozenset() if index is None else await self._in_thread(lambda: index.matching_constraints(words, ids))

    async def unmatched_terms(self, collection: Collection, words: ParsedQuery) -> tuple[str, ...]:
        index = await self._index(collection)
        return () if index is None else await self._in_thread(lambda: index.unmatched_terms(words))

    async def max_score(self, collection: Collection, words: ParsedQuery) -> float:
        index = await self._index(collection)
        return 0.0 if index is None else await self._in_thread(lambda: index.max_score(words))

    async def term_counts(self, collection: Collection, documents: Sequence[StoredDocument]) -> tuple[TermCounts, ...]:
        """As `ports.LexicalTruth`, made of the documents as they are, not of what the index holds of them."""
        analyzer = analyzer_for(collection.settings.language)
        return tuple(await self._in_thread(lambda: [bag(analyzer, document) for document in documents]))

    async def exact_scores(
        self, collection: Collection, words: ParsedQuery, bags: Sequence[TermCounts]
    ) -> tuple[float, ...]:
        index = await self._index(collection)
        if index is None:
            return (0.0,) * len(bags)
        return await self._in_thread(lambda: index.exact_scores(words, bags))

    async def document_frequencies(self, collection: Collection, words: ParsedQuery) -> tuple[int, ...]:
        index = await self._index(collection)
        return () if index is None else await self._in_thread(lambda: index.document_frequencies(words))

    async def highlight(
        self, collection: Collection, words: ParsedQuery, passages: Sequence[str]
    ) -> tuple[Highlights, ...]:
        index = await self._index(collection)
        if index is None:
            return tuple(Highlights() for _ in passages)
        return tuple(await self._in_thread(lambda: index.highlight(words, passages)))

    def state(self, collection: Collection) -> LexiconState:
        if self.current(collection):
            return "ready"
        return "rebuilding" if self.built(collection) else "building"

    async def wait_until(self, collection: Collection, position: Position) -> None:
        self._waiting[collection.id] += 1
        self._nudge.set()
        try:
            async with self._advanced:
                await self._advanced.wait_for(lambda: self._seen(collection) >= position)
        finally:
            self._waiting[collection.id] -= 1
            if not self._waiting[collection.id]:
                del self._waiting[collection.id]

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        """An upper bound: what was waiting at the last look, grown by the time since. Of a new language's index too."""
        looks = [(lag, looked_at) for of, lag, looked_at in self._looked.values() if of == collection_id]
        lags = [(lag, time.monotonic() - looked_at) for lag, looked_at in looks]
        return max((lag + since if lag > 0 or since > _TRUST_SECONDS else 0.0 for lag, since in lags), default=None)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)

    # ------------------------------------------------------------ what the follower needs

    def path(self, collection: Collection) -> Path:
        return self.directory / f"{collection.id}-{analyzer_for(collection.settings.language).version}"

    def visible(self, collection: Collection) -> Position:
        """How far searches of this process see; the very beginning where there is no index."""
        index = self._indexes.get(self.path(collection))
        return index.progress.position if index else Position()

    def current(self, collection: Collection) -> bool:
        """Is its index, in the language that it has now, complete?"""
        index = self._indexes.get(self.path(collection))
        return index is not None and index.progress.complete

    def built(self, collection: Collection) -> bool:
        """Can it be searched, if only in its former language?"""
        return self._answering(collection) is not None

    def former(self, collection: Collection) -> Collection | None:
        """The collection as it was, where its index of that time is there and complete, and read by the same code."""
        newest = sorted(self._formers(collection), key=lambda found: -found[0])
        return newest[0][1] if newest else None

    def _formers(self, collection: Collection) -> Iterator[tuple[float, Collection]]:
        for path in self.directory.glob(f"{collection.id}-*"):
            _, language, *_ = path.name.split("-")
            if language in KNOWN and language != collection.settings.language and not is_damaged(path):
                was = replace(collection, settings=replace(collection.settings, language=language))
                progress = read_progress(path)
                if path == self.path(was) and progress is not None and progress.complete:
                    yield path.stat().st_mtime, was

    def awaited(self) -> set[CollectionId]:
        """The collections that somebody waits for (`wait_until`)."""
        return set(self._waiting)

    def wake(self) -> None:
        """Wake the follower: it turns to what is due, and at once to what somebody waits for."""
        self._nudge.set()

    async def nudged(self, seconds: float) -> None:
        """Return at the next nudge, or after so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return
        finally:
            self._nudge.clear()

    async def refresh(self, collection: Collection) -> None:
        """Show what the writer, in whatever process, has committed meanwhile, and wake who waited for it."""
        index = self._indexes.get(self.path(collection))
        try:
            if index is None:
                await self._open(collection)
            elif index.stale():
                await self._in_thread(index.refresh)
            else:
                return
        except LexiconUnavailable:
            self._indexes.pop(self.path(collection), None)
            return
        async with self._advanced:
            self._advanced.notify_all()

    def looked(self, collection: Collection, lag_seconds: float) -> None:
        """The change feed was looked at just now, and this is what it said."""
        self._looked[self.path(collection)] = (collection.id, lag_seconds, time.monotonic())

    def keep(self, collections: Iterable[Collection]) -> None:
        """Let go of all other collections."""
        paths = {self.path(collection) for collection in collections}
        self._indexes = {path: index for path, index in self._indexes.items() if path in paths}
        self._looked = {path: look for path, look in self._looked.items() if path in paths}

    # ------------------------------------------------------------

    def _answering(self, collection: Collection) -> LexicalIndex | None:
        """The index that is searched: that of the collection's language or, until it is complete, of the former one."""
        if self.current(collection):
            return self._indexes[self.path(collection)]
        of = f"{collection.id}-"
        others = [
            index for path, index in self._indexes.items() if path.name.startswith(of) and index.progress.complete
        ]
        return others[-1] if others else None

    def _seen(self, collection: Collection) -> Position:
        index = self._answering(collection)
        return index.progress.position if index else Position()

    async def _index(self, collection: Collection) -> LexicalIndex | None:
        """None where the collection is so new that nothing can be in it yet."""
        index = self._answering(collection)
        if index is not None:
            return index
        try:
            index = self._indexes.get(self.path(collection)) or await self._open(collection)
        except LexiconUnavailable:
            if (self._now() - collection.created_at).total_seconds() < _YOUNG_SECONDS:
                return None
            was = self.former(collection)
            if was is None:
                raise
            return await self._open(was)
        was = None if index.progress.complete else self.former(collection)
        return index if was is None else await self._open(was)

    async def _open(self, collection: Collection) -> LexicalIndex:
        path, analyzer = self.path(collection), analyzer_for(collection.settings.language)
        index = await self._in_thread(lambda: LexicalIndex(path, analyzer))
        return self._indexes.setdefault(path, index)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
