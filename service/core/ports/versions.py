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
    """Embedder versions and their tables of vectors."""

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        """All versions of a collection, oldest first."""

    async def written(self) -> tuple[EmbedderVersion, ...]:
        """The versions of every collection that live writes go to: all but retired and failed ones."""

    async def in_states(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
        """The versions of every collection that are in one of these states."""

    async def status(self, version: EmbedderVersion) -> SpaceStatus: ...

    async def build_index(self, version: EmbedderVersion) -> bool:
        """Build the HNSW index concurrently; drop an invalid one first. False: another process is building it."""

    async def get(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        """VersionNotFound where there is none."""

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
        """Create a version (backfilling) with the next number and its table, in one transaction with its audit entry.

        It waits for writers in progress, so that every later commit goes to the version too. Conflict where the limit
        of written versions is reached; Overtaken where `newest` is given and is not the newest any more.
        """

    def transition_lock(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AbstractAsyncContextManager[bool]:
        """True for the one process that may advance this version while the block runs; False after `wait_seconds`."""

    async def move(
        self,
        version: EmbedderVersion,
        to: VersionState,
        entry: AuditEntry | None,
        *,
        reason: str | None = None,
        evidence: PromotionEvidence | None = None,
    ) -> EmbedderVersion:
        """Change the state (or keep it, for new `evidence`), in one transaction with the audit entry.

        Conflict where the state is no longer that of `version`. Only `promote` makes a version active, or inactive.
        `evidence` None keeps the old one. A failed version loses its jobs. A backfill begins with the first document,
        not paused; Conflict where the limit of written versions is reached.
        """

    def calibration_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process that may calibrate this version while the block runs."""

    async def save_calibration(self, version: EmbedderVersion, calibration: Calibration) -> bool:
        """False where the version has another calibration than `version` says, or is not written any more."""

    async def pause(self, version: EmbedderVersion, paused: bool, entry: AuditEntry) -> EmbedderVersion:
        """Pause or continue the backfill. Where nothing changes, no audit entry is written."""

    async def promote(self, collection: Collection, version: EmbedderVersion, entry: AuditEntry) -> Collection:
        """Make the version active and the active one ready, with settings and jobs, in one transaction.

        Conflict where `collection.active_version` is not active, or the version not ready, any more.
        """

    async def retire(self, version: EmbedderVersion, entry: AuditEntry) -> EmbedderVersion:
        """Delete its jobs, cancel index builds, drop its table. Conflict where it is active."""
