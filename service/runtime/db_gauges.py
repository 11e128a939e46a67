"""Gauges that mirror the database: brought up to date right before they are read, gone with what they tell of."""

from collections.abc import Sequence
from datetime import datetime

from service.core import metrics
from service.core.collections import Collection
from service.core.errors import NotFound
from service.core.periodic import Clock
from service.core.ports.backfills import Backfills
from service.core.ports.collections import Collections
from service.core.ports.indexes import Indexes
from service.core.ports.queue import JobQueue
from service.core.ports.recall import RecallStore
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion, VersionState


class KnownCollections:
    """The collections that there were at the last look."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._known: set[str] = set()

    async def look(self) -> tuple[Collection, ...]:
        """The collections that there are. Metrics of those that are gone since the last look go too."""
        there = await self._collections.all()
        names: set[str] = {collection.name for collection in there}
        for name in self._known - names:
            metrics.remove_collection(name)
        self._known = names
        return there


class DatabaseGauges:
    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        queue: JobQueue,
        backfills: Backfills,
        recalls: RecallStore,
        indexes: Indexes,
    ) -> None:
        self._names = KnownCollections(collections)
        self._versions = versions
        self._queue = queue
        self._backfills = backfills
        self._recalls = recalls
        self._indexes = indexes

    async def refresh(self, now: Clock) -> None:
        moment = now()
        for collection in await self._names.look():
            queue = await self._queue.status(collection.id, collection.active_version, moment)
            metrics.QUEUE_PENDING.labels(collection.name).set(queue.pending)
            metrics.QUEUE_FAILED.labels(collection.name).set(queue.failed)
            metrics.QUEUE_OLDEST.labels(collection.name).set(queue.oldest_seconds)
            versions = await self._versions.of(collection.id)
            for version in versions:
                await self._state(collection, version, moment)
            await self._promise(collection, versions)

    async def _state(self, collection: Collection, version: EmbedderVersion, now: datetime) -> None:
        labels = (collection.name, str(version.number))
        for state in VersionState:
            metrics.VERSION_STATE.labels(*labels, state.value).set(version.state is state)
        if version.state is VersionState.BACKFILLING:
            progress = await self._backfills.progress(version, now)
            metrics.BACKFILL_REMAINING.labels(*labels).set(progress.total - progress.done)
        else:
            metrics.BACKFILL_REMAINING.remove_by_labels({"collection": labels[0], "version": labels[1]})

    async def _promise(self, collection: Collection, versions: Sequence[EmbedderVersion]) -> None:
        """How far searches look for which recall, and how the indexes stand that they look along."""
        metrics.RECALL_TARGET.labels(collection.name).set(collection.settings.recall_target)
        ef_settings = await self._recalls.ef_settings(collection.id)
        chosen = {one.version: one for one in ef_settings if one.band == "all"}
        missed = {one.version for one in ef_settings if one.missed}
        for version in versions:
            labels = (collection.name, str(version.number))
            if not version.written:
                metrics.remove_version(*labels)
                continue
            try:
                health = await self._indexes.health(version)
            except NotFound:
                continue
            metrics.DEAD_ROWS.labels(*labels).set(health.dead_rows)
            metrics.VECTORS.labels(*labels).set(health.rows)
            metrics.INDEX_BYTES.labels(*labels).set(0 if health.index is None else health.index.bytes)
            if health.index is not None and version.number in chosen:
                metrics.EF_SEARCH.labels(*labels).set(chosen[version.number].ef_search)
                metrics.RECALL_TARGET_MISSED.labels(*labels).set(version.number in missed)
