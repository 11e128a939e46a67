"""Gauges that mirror the database: brought up to date right before they are read, gone with what they tell of."""

from datetime import datetime

from service import metrics
from service.catalog import Backfills, Collections, Versions
from service.control import Control
from service.domain import Collection
from service.ports import Queue
from service.rounds import Clock
from service.version import EmbedderVersion, VersionState


class Names:
    """The collections that there were at the last look."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._known: set[str] = set()

    async def look(self) -> tuple[Collection, ...]:
        """The collections that there are. Metrics of those that are gone since the last look go too."""
        there = await self._collections.all()
        names: set[str] = {collection.name for collection in there}
        for name in self._known - names:
            metrics.forget(name)
        self._known = names
        return there


class Gauges:
    def __init__(
        self, *, collections: Collections, versions: Versions, queue: Queue, backfills: Backfills, control: Control
    ) -> None:
        self._names = Names(collections)
        self._versions = versions
        self._queue = queue
        self._backfills = backfills
        self._control = control

    async def refresh(self, now: Clock) -> None:
        moment = now()
        for collection in await self._names.look():
            queue = await self._queue.status(collection.id, collection.active_version, moment)
            metrics.QUEUE_PENDING.labels(collection.name).set(queue.pending)
            metrics.QUEUE_FAILED.labels(collection.name).set(queue.failed)
            metrics.QUEUE_OLDEST.labels(collection.name).set(queue.oldest_seconds)
            versions = await self._versions.of(collection.id)
            await self._control.export(collection, versions)
            for version in versions:
                await self._tell(collection, version, moment)

    async def _tell(self, collection: Collection, version: EmbedderVersion, now: datetime) -> None:
        labels = (collection.name, str(version.number))
        for state in VersionState:
            metrics.VERSION_STATE.labels(*labels, state.value).set(version.state is state)
        if version.state is VersionState.BACKFILLING:
            progress = await self._backfills.progress(version, now)
            metrics.BACKFILL_REMAINING.labels(*labels).set(progress.total - progress.done)
        else:
            metrics.BACKFILL_REMAINING.remove_by_labels({"collection": labels[0], "version": labels[1]})
