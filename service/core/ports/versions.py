"""Port of the embedder versions."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.core.collections import ChunkingSettings, Collection, EmbedderSpec, IndexSettings
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import (
    AuditEntry,
    Calibration,
    EmbedderIdentity,
    EmbedderVersion,
    PromotionEvidence,
    SpaceStatus,
    VersionState,
)


class Versions(Protocol):
    """Embedder versions and their physical spaces."""

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        """All of a collection, oldest first."""
        ...

    async def written(self) -> tuple[EmbedderVersion, ...]:
        """Those of every collection that live writes go to (all but retired and failed)."""
        ...

    async def in_states(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
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
        chunking: ChunkingSettings,
        index: IndexSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        entry: AuditEntry,
        newest: VersionNumber | None = None,
    ) -> EmbedderVersion:
        """A new version (backfilling) with the next number and its table, in one transaction with its audit entry.

        Every write that commits later goes to it too: writers in progress are waited for. Conflict where as many
        versions as may be are written already; Overtaken where `newest` is given and is the newest no more.
        """
        ...

    def transition_lock(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AbstractAsyncContextManager[bool]:
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
        evidence: PromotionEvidence | None = None,
    ) -> EmbedderVersion:
        """To another state (or the same, for new `evidence`), in one transaction with its audit entry.

        Conflict where it is no longer in the state that `version` says; what is active becomes or ceases to be so by
        `promote` alone. `evidence` None keeps what there is. A failed version has no jobs; to backfilling: from the
        first document on, not paused, and Conflict where as many as may be are written already.
        """
        ...

    def calibration_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may calibrate this version, as long as the block lasts."""
        ...

    async def save_calibration(self, version: EmbedderVersion, calibration: Calibration) -> bool:
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
