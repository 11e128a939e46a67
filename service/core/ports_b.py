"""Ports of what is known of documents as a whole: collections, their versions, test sets and history.

Like `ports.py`, one Protocol each, held by the same contract suites in memory and in PostgreSQL.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from service.core.domain import (
    Chunking,
    Collection,
    CollectionId,
    CollectionName,
    CollectionSettings,
    Counts,
    EmbedderSpec,
    Index,
    IndexedField,
    VersionNumber,
)
from service.core.index_health import Health
from service.core.recall import Curve, Effort, Minute
from service.core.versions import (
    AuditEntry,
    Backfill,
    Calibration,
    Completeness,
    EmbedderVersion,
    Evidence,
    Identity,
    Judgments,
    Process,
    Progress,
    SpaceStatus,
    VersionState,
)


class Collections(Protocol):
    """Named sets of documents and their settings."""

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        identity: Identity,
        canary: Mapping[str, tuple[float, ...]],
        now: datetime,
        actor: str = "azimuth",
    ) -> Collection:
        """Create it with embedder version 1 (active), that version's table and an audit entry, in one transaction.

        Conflict where the name is taken, also when two create it at once.
        """
        ...

    async def update(
        self, collection: Collection, settings: CollectionSettings, entry: AuditEntry | None = None
    ) -> Collection:
        """Replace the settings. Conflict where they are no longer those of `collection`: look again first.

        The audit entry is completed with the settings before and after; where they are the same there is none.
        """
        ...

    async def by_name(self, name: CollectionName) -> Collection:
        """CollectionNotFound where there is none."""
        ...

    async def get(self, collection_id: CollectionId) -> Collection:
        """CollectionNotFound where there is none."""
        ...

    async def all(self) -> tuple[Collection, ...]: ...

    async def delete(self, collection_id: CollectionId) -> None:
        """Remove it with all its documents, jobs, changes and vector tables."""
        ...

    async def counts(self, collection: Collection) -> Counts: ...

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        """The declared fields in the order of their names, and whether filters can use them yet."""
        ...


class Versions(Protocol):
    """Embedder versions and their physical spaces."""

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        """All of a collection, oldest first."""
        ...

    async def written(self) -> tuple[EmbedderVersion, ...]:
        """Those of every collection that live writes go to (all but retired and failed)."""
        ...

    async def among(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
        """Those of every collection that are in one of these states."""
        ...

    async def status(self, version: EmbedderVersion) -> SpaceStatus: ...

    async def build_index(self, version: EmbedderVersion) -> bool:
        """Build the HNSW index concurrently; an invalid leftover is dropped first. False: someone else is at it."""
        ...

    # ------------------------------------------------------------ the lifecycle

    async def get(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        """VersionNotFound where there is none."""
        ...

    async def register(
        self,
        collection: Collection,
        spec: EmbedderSpec,
        chunking: Chunking,
        index: Index,
        identity: Identity,
        canary: Mapping[str, tuple[float, ...]],
        entry: AuditEntry,
        newest: VersionNumber | None = None,
    ) -> EmbedderVersion:
        """A new version (backfilling) with the next number and its table, in one transaction with its audit entry.

        Every write that commits later goes to it too: writers in progress are waited for. Conflict where as many
        versions as may be are written already; Overtaken where `newest` is given and is the newest no more.
        """
        ...

    def driving(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may move this version on, as long as the block lasts.

        False where another still is it after `wait_seconds`.
        """
        ...

    async def move(
        self,
        version: EmbedderVersion,
        to: VersionState,
        entry: AuditEntry | None,
        *,
        reason: str | None = None,
        evidence: Evidence | None = None,
    ) -> EmbedderVersion:
        """To another state (or the same, for new `evidence`), in one transaction with its audit entry.

        Conflict where it is no longer in the state that `version` says; what is active becomes or ceases to be so by
        `promote` alone. `evidence` None keeps what there is. A failed version has no jobs; to backfilling: from the
        first document on, not paused, and Conflict where as many as may be are written already.
        """
        ...

    def learning(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may calibrate this version, as long as the block lasts."""
        ...

    async def learnt(self, version: EmbedderVersion, calibration: Calibration) -> bool:
        """Keep it with the version. False where that has another calibration than `version` says, or is not written."""
        ...

    async def pause(self, version: EmbedderVersion, paused: bool, entry: AuditEntry) -> EmbedderVersion:
        """Let the backfill rest or go on; nothing happens, and nothing is noted, where it is so already."""
        ...

    async def promote(self, collection: Collection, version: EmbedderVersion, entry: AuditEntry) -> Collection:
        """Make it the active version and the one that was active ready, with settings and jobs, in one transaction.

        Conflict where `collection.active_version` is active no more or the version is not ready any more.
        """
        ...

    async def retire(self, version: EmbedderVersion, entry: AuditEntry) -> EmbedderVersion:
        """End its jobs and drop its table at once; index builds on it are cancelled. Conflict where it is active."""
        ...


class Backfills(Protocol):
    """How a new version gets the documents that were there before it."""

    async def advance(self, version: EmbedderVersion, now: datetime, window: int) -> Backfill:
        """Enqueue the next documents that the version lacks, so that about `window` jobs of the backfill wait.

        Goes on where the last call ended, whoever made it. What the version has in its present content is left out.
        """
        ...

    async def restart(self, version: EmbedderVersion) -> None:
        """Look at every document again, and drop vectors whose document is gone: something was missed."""
        ...

    async def progress(self, version: EmbedderVersion, now: datetime) -> Progress: ...

    async def note(self, version: EmbedderVersion, now: datetime) -> None:
        """Remember how far it is now: the rate is measured between such notes."""
        ...

    async def completeness(self, version: EmbedderVersion) -> Completeness: ...


class Audit(Protocol):
    """Who changed what, when, on which evidence. The other ports write their entries with what they change."""

    async def page(self, collection_id: CollectionId, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """Entries with smaller numbers than `before`, newest first."""
        ...

    async def add(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        """An entry of something that is kept elsewhere. CollectionNotFound where there is no such collection."""
        ...


class TestSets(Protocol):
    """The judgments that collections bring along."""

    async def put(self, collection_id: CollectionId, judgments: Judgments, entry: AuditEntry) -> None:
        """Replace the whole set, with its audit entry. CollectionNotFound where there is no such collection."""
        ...

    async def get(self, collection_id: CollectionId) -> Judgments | None: ...

    async def uploaded_at(self, collection_id: CollectionId) -> datetime | None:
        """As `get(...).uploaded_at`, without reading all of it."""
        ...

    async def delete(self, collection_id: CollectionId, entry: AuditEntry) -> None: ...


class Processes(Protocol):
    """The API processes of this installation, by their heartbeats."""

    async def seen(self, process: Process) -> None:
        """A heartbeat. Processes not seen for long are forgotten."""
        ...

    async def since(self, moment: datetime) -> tuple[Process, ...]:
        """Those seen since then."""
        ...

    async def gone(self, process_id: str) -> None:
        """It stops."""
        ...


class Recalls(Protocol):
    """What was measured of recall, and what was made of it. Kept where every API process sees it."""

    async def add(self, collection_id: CollectionId, minutes: Sequence[Minute]) -> None:
        """Add these sums to what is there. CollectionNotFound where it was deleted."""
        ...

    async def since(self, collection_id: CollectionId, moment: datetime, minutes: int = 1) -> tuple[Minute, ...]:
        """The minutes from `moment` on, oldest first; so many `minutes` of the clock together, told by the first."""
        ...

    async def forget(self, before: datetime) -> int:
        """Drop older minutes, of every collection. Answers how many."""
        ...

    async def efforts(self, collection_id: CollectionId) -> tuple[Effort, ...]: ...

    async def put_effort(self, collection_id: CollectionId, effort: Effort, entry: AuditEntry | None) -> None:
        """Set it, with its audit entry (None: only the reason is another) in one transaction. CollectionNotFound."""
        ...

    async def curve(self, version: EmbedderVersion) -> Curve | None: ...

    async def put_curve(self, version: EmbedderVersion, curve: Curve) -> None:
        """VersionNotFound where it is gone."""
        ...


class Indexes(Protocol):
    """The HNSW indexes of versions: how they stand, and how they are built anew."""

    async def look(self, version: EmbedderVersion) -> Health:
        """VersionNotFound where it is gone."""
        ...

    def steering(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may set how far searches look, as long as the block lasts."""
        ...

    def rebuilding(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may build this index, as long as the block lasts."""
        ...

    async def rebuild(self, version: EmbedderVersion) -> None:
        """Inside of `rebuilding`: build the index anew beside searches and writes; the old one serves until then.

        Takes minutes for millions of rows. VersionNotFound where it is gone; TimedOut where it was cancelled.
        """
        ...
