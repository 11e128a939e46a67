"""Gauges that mirror the database: updated right before they are read, removed with their collection or version."""

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class KnownCollections:
    """The collections that existed, or had metrics, at the last `refresh`."""

    collections: Collections
    _names: set[str] = field(default_factory=set, init=False)

    async def refresh(self) -> tuple[Collection, ...]:
        """The collections that exist. Removes the metrics of those that were deleted since the last call.

        What still ran when its collection was deleted may leave metrics behind: these go with the next call. So do
        those of a collection that no call saw. Not at once: a collection may be newer than the list of those that are.
        """
        existing = await self.collections.all()
        names: set[str] = {collection.name for collection in existing}
        for name in self._names - names:
            metrics.remove_collection(name)
        self._names = names | metrics.measured_collections()
        return existing


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseGauges:
    """Sets the gauges of all collections and versions from the database."""

    known: KnownCollections
    versions: Versions
    queue: JobQueue
    backfills: Backfills
    recalls: RecallStore
    indexes: Indexes

    async def refresh(self, now: Clock) -> None:
        moment = now()
        for collection in await self.known.refresh():
            queue = await self.queue.status(collection.id, collection.active_version, moment)
            versions = await self.versions.of(collection.id)
            # No worker encodes what waits for its client: that must not look like a backlog.
            external = any(one.number == collection.active_version and one.spec.external for one in versions)
            metrics.QUEUE_PENDING.labels(collection.name).set(0 if external else queue.pending)
            metrics.WITHOUT_VECTOR.labels(collection.name).set(queue.pending if external else 0)
            metrics.QUEUE_FAILED.labels(collection.name).set(queue.failed)
            metrics.QUEUE_OLDEST.labels(collection.name).set(0 if external else queue.oldest_seconds)
            for version in versions:
                await self._refresh_state(collection, version, moment)
            await self._refresh_indexes(collection, versions)

    async def _refresh_state(self, collection: Collection, version: EmbedderVersion, now: datetime) -> None:
        labels = (collection.name, str(version.number))
        for state in VersionState:
            metrics.VERSION_STATE.labels(*labels, state.value).set(version.state is state)
        if version.state is VersionState.BACKFILLING:
            progress = await self.backfills.progress(version, now)
            metrics.BACKFILL_REMAINING.labels(*labels).set(progress.total - progress.done)
        else:
            metrics.BACKFILL_REMAINING.remove_by_labels({"collection": labels[0], "version": labels[1]})

    async def _refresh_indexes(self, collection: Collection, versions: Sequence[EmbedderVersion]) -> None:
        """The recall target, the `ef_search` chosen for it, and the size and health of each index."""
        metrics.RECALL_TARGET.labels(collection.name).set(collection.settings.recall_target)
        ef_settings = await self.recalls.ef_settings(collection.id)
        chosen = {one.version: one for one in ef_settings if one.band == "all"}
        missed = {one.version for one in ef_settings if one.missed}
        for version in versions:
            labels = (collection.name, str(version.number))
            if not version.written:
                metrics.remove_version(*labels)
                continue
            try:
                health = await self.indexes.health(version)
            except NotFound:
                continue
            metrics.DEAD_ROWS.labels(*labels).set(health.dead_rows)
            metrics.VECTORS.labels(*labels).set(health.rows)
            metrics.INDEX_BYTES.labels(*labels).set(0 if health.index is None else health.index.bytes)
            if health.index is not None and version.number in chosen:
                metrics.EF_SEARCH.labels(*labels).set(chosen[version.number].ef_search)
                metrics.RECALL_TARGET_MISSED.labels(*labels).set(version.number in missed)
