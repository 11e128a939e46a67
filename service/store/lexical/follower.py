"""Keeps the lexical indexes in step with the change feed.

One process writes: the leader, which holds the lock of the installation's folder. When it dies another one takes over.
The others only check when a directory changed, and now and then ask the feed how far behind they are.
"""

import asyncio
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from service.core.change_feed import Change
from service.core.collections import Collection
from service.core.errors import NotFound, Unavailable
from service.core.ids import CollectionId
from service.core.metrics import LEXICAL_LAG, LEXICAL_REBUILDS
from service.core.ports.change_feed import FollowedChanges
from service.store.disk_space import has_room
from service.store.file_lock import FileLock
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.indexer import Indexer
from service.store.lexical.lexicon import TantivyLexicon
from service.store.lexical.progress import is_damaged
from service.store.lexical.verification import panics_raised

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1000
"""Changes that are read at once."""

_COMMIT_CHANGES = 20_000
_COMMIT_SECONDS = 0.5
"""The longest time between two commits while catching up. One costs 5 to 10 ms and a segment that is merged later."""

_POLL_SECONDS = 0.1
_WAITED_POLL_SECONDS = 0.01
"""Between two reads of a collection's feed; the second while somebody waits for it."""

_READ_COST_SECONDS = 0.02
"""An idle collection is read once in so long times their number: 50 queries a second at most, however many they are."""

_LOOK_SECONDS, _LOOK_COST_SECONDS = 0.05, 0.0005
"""Between two looks whether anything was committed to idle collections, and the same for each collection."""

_LIST_SECONDS = 1.0
"""Between two reads of the list of collections, and between tries after an error."""

_IDLE_SECONDS = 30.0
"""An index that did not change for so long frees its writer's threads and memory."""

_REPAIR_SECONDS = 600.0
"""The shortest time between two rebuilds of a directory that readers found damaged."""

_DIRECTORY = re.compile(r"\d+-[a-z]+-[0-9a-f]+(\.new|\.old)?")


class Listing(Protocol):
    """What the follower needs of `ports.Collections`."""

    async def all(self) -> tuple[Collection, ...]: ...


@dataclass(slots=True)
class _FollowedCollection:
    """One collection, and when to process it again (all times in monotonic seconds).

    `newest`: of its changes at the last look. `idle`: all of it was read, and no transaction can still add to that.
    """

    collection: Collection
    due: float = 0.0
    checked_at: float = 0.0
    changed_at: float = 0.0
    committed_at: float = 0.0
    newest: int = 0
    idle: bool = False
    indexer: Indexer | None = None


class Follower:
    """One task for all collections of a process: `await Follower(...).run(stop)`."""

    def __init__(
        self,
        lexicon: TantivyLexicon,
        collections: Listing,
        changes: FollowedChanges,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.leading = False
        self._lexicon = lexicon
        self._collections = collections
        self._changes = changes
        self._now = now
        self._lock = FileLock(lexicon.directory / "follower.lock")
        self._followed: dict[Path, _FollowedCollection] = {}
        self._interrupted = False
        self._listed_at = self._looked_at = float("-inf")
        self._repaired_at: dict[CollectionId, float] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lexical-writer")

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until `stop`. Errors are logged, tried again and visible as lag; they are never raised."""
        waker = asyncio.create_task(self._wake_on(stop))
        try:
            while not stop.is_set():
                await self._lexicon.wait_for_wake(await self._process_due())
        finally:
            waker.cancel()
            # What was not committed is dropped here and read again by the next leader. Nothing is awaited: that could
            # be cancelled, and whoever writes next would wait for the writers, or for the lock, for ever.
            self._thread.submit(_discard, list(self._followed.values()))
            self._thread.shutdown()
            self._lock.release()
            self.leading = False

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._lexicon.wake()

    async def _process_due(self) -> float:
        """Process every collection that is due or waited for; returns the pause in seconds."""
        try:
            await self._update_leadership()
            waited_for = self._lexicon.waiting_collections()
            known = {followed.collection.id for followed in self._followed.values()}
            if time.monotonic() - self._listed_at >= _LIST_SECONDS or waited_for - known:
                await self._update_collections()
            await self._wake_changed()
            for followed in list(self._followed.values()):
                if followed.due <= time.monotonic() or followed.collection.id in waited_for:
                    await self._process(followed)
        except Unavailable as error:
            if not self._interrupted:
                logger.warning("the change feed cannot be read: %s", error)
            self._interrupted = True
            return _POLL_SECONDS  # soon: it may come back with older content, which the indexes do not know of yet
        except Exception:
            logger.exception("the lexical indexes cannot be followed")
            return _LIST_SECONDS
        finally:
            self._export_lag()
        self._interrupted = False
        due = min((followed.due for followed in self._followed.values()), default=float("inf"))
        return min(max(due - time.monotonic(), 0.0), _POLL_SECONDS)

    async def _update_leadership(self) -> None:
        leading = self._lock.acquire()
        if self.leading != leading:
            if not leading:
                await self._close_indexers(self._followed.values())
            logger.info("this process %s the lexical indexes", "writes" if leading else "no longer writes")
        self.leading = leading

    async def _update_collections(self) -> None:
        """Add new collections, and remove deleted ones and former languages once the new index is complete."""
        collections = await self._collections.all()
        outdated = (one for one in collections if not self._lexicon.is_current(one))
        former = [self._lexicon.in_former_language(one) for one in outdated]
        listed = {self._lexicon.path(one): one for one in (*collections, *former) if one is not None}
        self._listed_at = time.monotonic()
        removed = [self._followed.pop(path) for path in list(self._followed) if path not in listed]
        for path, collection in listed.items():
            self._followed.setdefault(path, _FollowedCollection(collection)).collection = collection
        self._lexicon.retain(listed.values())
        await self._close_indexers(removed)
        names = {collection.name for collection in listed.values()}
        for name in {followed.collection.name for followed in removed} - names:
            with suppress(KeyError):
                LEXICAL_LAG.remove(name)
        if self.leading:
            await self._in_thread(self._remove_unused, set(listed))

    async def _wake_changed(self) -> None:
        """Make idle collections due to which something was committed: by one small query for all of them."""
        pause = max(_LOOK_SECONDS, _LOOK_COST_SECONDS * len(self._followed))
        if not self.leading or time.monotonic() - self._looked_at < pause:
            return
        newest = await self._changes.newest()
        self._looked_at = time.monotonic()
        for followed in self._followed.values():
            number = newest.get(followed.collection.id, 0)
            if followed.idle and number != followed.newest:
                followed.due = 0.0
            followed.newest = number

    async def _process(self, followed: _FollowedCollection) -> None:
        """One bounded step, so that a long catch-up of one collection does not delay the others."""
        followed.idle = False
        try:
            writes = self.leading and has_room(self._lexicon.directory)
            pause = await (self._follow(followed) if writes else self._watch(followed))
        except NotFound:
            pause = _LIST_SECONDS  # just deleted; the next list of collections will show it
        except Unavailable:
            raise
        except Exception:
            logger.exception("the lexical index of %s cannot be written", followed.collection.name)
            await self._close_indexers([followed])
            pause = _LIST_SECONDS
        followed.due = time.monotonic() + pause

    async def _follow(self, followed: _FollowedCollection) -> float:
        """As the leader: read a page, apply it, and commit where it is time. Returns the pause in seconds."""
        collection = followed.collection
        indexer = await self._in_thread(self._indexer, followed)
        mark = indexer.progress.mark
        page = await self._changes.after(collection.id, indexer.position, PAGE, self._now(), indexer.seen, mark)
        if page.rebuild:
            return await self._rebuild(collection, indexer)
        now = time.monotonic()
        caught_up = len(page.changes) < PAGE and not page.cut
        lag, ahead = page.lag_seconds, tuple[Change, ...]()
        if page.changes:
            await self._in_thread(indexer.apply, page.changes)
        if page.ahead and caught_up:
            ahead, snapshot, cut = await self._changes.ahead(collection.id, indexer.seen, indexer.ahead_at, PAGE)
            caught_up = len(ahead) < PAGE and not cut
            await self._in_thread(partial(indexer.apply_ahead, ahead, snapshot, exhausted=caught_up))
            lag = 0.0 if caught_up else lag
        if page.changes or ahead:
            followed.changed_at = now
        elif now - followed.changed_at > _IDLE_SECONDS and not indexer.pending:
            await self._in_thread(indexer.release_writer)
        waited = now - followed.committed_at >= _COMMIT_SECONDS
        if indexer.needs_commit and (caught_up or waited or indexer.pending >= _COMMIT_CHANGES):
            token = await self._changes.mark(collection.id, mark, self._now())
            if token is None:
                return await self._rebuild(collection, indexer)
            await self._in_thread(lambda: indexer.commit(caught_up=caught_up, token=token))
            followed.committed_at = time.monotonic()
        await self._lexicon.refresh(collection)
        self._lexicon.record_lag(collection, lag)
        followed.idle = not (page.changes or page.ahead)
        return self._pause(followed) if caught_up else 0.0

    async def _rebuild(self, collection: Collection, indexer: Indexer) -> float:
        """Begin again from zero; it is searched again when it is complete."""
        logger.warning(
            "the lexical index of %s is built anew: the database was restored, or no longer has what follows its place",
            collection.name,
        )
        LEXICAL_REBUILDS.labels("restored").inc()
        await self._in_thread(indexer.wipe)
        await self._lexicon.refresh(collection)
        return 0.0

    async def _watch(self, followed: _FollowedCollection) -> float:
        """As a reader: show what the leader committed, and now and then ask the feed for the lag of this process."""
        collection = followed.collection
        await self._lexicon.refresh(collection)
        if time.monotonic() - followed.checked_at >= self._idle_seconds():
            progress = self._lexicon.visible_progress(collection)
            mark = progress.mark
            page = await self._changes.after(collection.id, progress.position, 1, self._now(), progress.seen, mark)
            followed.checked_at = time.monotonic()
            if page.rebuild:
                self._lexicon.refuse(collection)
            self._lexicon.record_lag(collection, page.lag_seconds)
        return self._pause(followed)

    def _pause(self, followed: _FollowedCollection) -> float:
        if followed.collection.id in self._lexicon.waiting_collections():
            return _WAITED_POLL_SECONDS
        return self._idle_seconds() if followed.idle else _POLL_SECONDS

    def _idle_seconds(self) -> float:
        return max(_LIST_SECONDS, _READ_COST_SECONDS * len(self._followed))

    def _export_lag(self) -> None:
        for followed in self._followed.values():
            if (lag := self._lexicon.lag_seconds(followed.collection.id)) is not None:
                LEXICAL_LAG.labels(followed.collection.name).set(lag)

    async def _close_indexers(self, followed: Iterable[_FollowedCollection]) -> None:
        await self._in_thread(_discard, list(followed))

    def _indexer(self, followed: _FollowedCollection) -> Indexer:
        path, collection = self._lexicon.path(followed.collection), followed.collection
        now = time.monotonic()
        damaged = is_damaged(path) or (followed.indexer is not None and not followed.indexer.in_place())
        repaired_at = self._repaired_at.get(collection.id, float("-inf"))
        if followed.indexer is not None and damaged and now - repaired_at >= _REPAIR_SECONDS:
            logger.error("the lexical index of %s is damaged and is built anew", collection.name)
            _discard([followed])
        if followed.indexer is None:
            if is_damaged(path):
                self._repaired_at[collection.id] = now
            followed.indexer = Indexer(path, analyzer_for(collection.settings.language))
        return followed.indexer

    def _remove_unused(self, used: set[Path]) -> None:
        """Remove the directories of deleted collections and of former analyzers."""
        for path in self._lexicon.directory.iterdir():
            if _DIRECTORY.fullmatch(path.name) and path not in used:
                shutil.rmtree(path, ignore_errors=True)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        with panics_raised():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _discard(all_followed: list[_FollowedCollection]) -> None:
    for followed in all_followed:
        if followed.indexer is not None:
            followed.indexer.discard()
            followed.indexer = None
