"""What the stories need from the outside, one Protocol each. Adapters live in `store/` and `embedder/`.

The same contract suite (`tests/contract`) runs on the in-memory fakes and on the real adapters. Every write names its
own time (`now`), so that a story and its tests own the clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from service.domain import (
    Accepted,
    AuditEntry,
    Backfill,
    Candidate,
    ChangePage,
    Chunking,
    Collection,
    CollectionId,
    CollectionName,
    CollectionSettings,
    Completeness,
    Counts,
    DensePlan,
    Document,
    DocumentId,
    EmbedderSpec,
    EmbedderVersion,
    Encoded,
    Evidence,
    FailedDocument,
    Filter,
    Identity,
    Index,
    Job,
    Judgments,
    Lane,
    Passing,
    Position,
    Process,
    Progress,
    QueueStatus,
    Role,
    Sample,
    SpaceStatus,
    StoredDocument,
    Vector,
    VersionNumber,
    VersionState,
)
from service.domain import (
    Vectors as VectorArray,
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


class Documents(Protocol):
    """Documents as committed: the truth that both legs follow."""

    async def put(
        self,
        collection_id: CollectionId,
        documents: Sequence[Document],
        now: datetime,
        vectors_of: EmbedderVersion | None = None,
    ) -> tuple[Accepted, ...]:
        """Create or replace, in one transaction with the jobs and the change rows; outcomes in the order given.

        Ids must be distinct. Changed content enqueues a job for every written version; a change of metadata alone
        raises the revision but makes nothing anew; the same again changes nothing.

        A document's own `vector` is stored under `vectors_of` in the same transaction, ending its job there, also where
        the content stays as it was. VersionNotFound where that version takes none (any more).
        """
        ...

    async def delete(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime, where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        """Delete those that pass, with vectors and jobs, in one transaction. Answers those that were there.

        `where` is asked of each document as it is when it is deleted, however it was found.
        """
        ...

    async def get(
        self, collection_id: CollectionId, ids: Sequence[DocumentId]
    ) -> Mapping[DocumentId, StoredDocument]: ...

    async def page(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter | None
    ) -> tuple[StoredDocument, ...]:
        """Up to `limit` documents with ids after `after`, in byte order of the ids."""
        ...

    async def passing(self, collection_id: CollectionId, where: Filter, cap: int) -> Passing:
        """The documents that pass, named where there are at most `cap`. Stops counting at cap + 1."""
        ...

    async def passing_among(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        """Those of `ids` that exist and pass."""
        ...

    async def passages(
        self, collection_id: CollectionId, candidates: Sequence[Candidate], where: Filter | None, default_length: int
    ) -> tuple["Passage | None", ...]:
        """The text of each candidate's chunk as it stands now, aligned with `candidates`.

        None where the document was deleted, its content is no longer of the candidate's revision, or it no longer
        passes the filter. A candidate without offsets gives the first `default_length` code points.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A chunk read back from its document."""

    title: str
    text: str
    start: int
    end: int
    metadata: Mapping[str, Any]
    revision: int


class Queue(Protocol):
    """Documents that wait for the embedder. A job ends by being stored (`Vectors.write`) or set aside."""

    async def claim(
        self,
        versions: Sequence[EmbedderVersion],
        limit: int,
        worker: str,
        now: datetime,
        lease: timedelta,
        lane: Lane = "live",
    ) -> tuple["Claimed", ...]:
        """Lease jobs of one lane and commit at once, then read their documents. Old before new.

        Of live writes those of the active version come first.
        """
        ...

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        """Heartbeat: keep the leases that are still ours."""
        ...

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        """Give back uncharged (shutdown, trouble of the database or of the model)."""
        ...

    async def charge(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        """Count a failed attempt against each; at `max_attempts` it is set aside. Answers those set aside.

        Runs in a transaction of its own, before a risky document is tried alone as well as after it failed. The lease
        is kept, so that a document charged beforehand can still be stored; otherwise it comes back at `available`,
        and that its lease ran out is not counted as lost once more.
        """
        ...

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus: ...

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]: ...

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        """Put everything that was set aside back, with its attempts forgotten. Answers how many."""
        ...

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that the version has not encoded yet and that were not set aside."""
        ...

    async def set_aside(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that the version could not encode."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A leased job with its document. `lost_leases`: how often a worker took it and never came back."""

    job: Job
    document: StoredDocument
    lost_leases: int


class Vectors(Protocol):
    """The spaces: one physical table for each embedder version. Dense scores are cosines in [-1, 1]."""

    async def write(self, version: EmbedderVersion, encoded: Sequence[Encoded]) -> frozenset[DocumentId]:
        """Replace the vectors of these documents, ending their jobs, in one transaction.

        Fenced: a job whose lease or revision is no longer the queue's is skipped. Answers what was stored.
        """
        ...

    async def nearest(
        self,
        version: EmbedderVersion,
        vector: Vector,
        limit: int,
        plan: DensePlan,
        within: Sequence[DocumentId] | None = None,
        where: Filter | None = None,
    ) -> tuple[Candidate, ...]:
        """Up to `limit` nearest chunks, best first, run as `plan` says.

        `within` names the documents that pass a filter (scanned exactly); `where` filters while scanning.
        """
        ...

    async def score(self, version: EmbedderVersion, vector: Vector, ids: Sequence[DocumentId]) -> tuple[Candidate, ...]:
        """The best chunk of each of these documents with its exact cosine; documents without vectors are left out."""
        ...

    async def get(
        self,
        version: EmbedderVersion,
        chunks: Sequence[tuple[DocumentId, int]],
        revisions: Sequence[int] | None = None,
    ) -> Mapping[tuple[DocumentId, int], Vector]:
        """The vectors of these chunks, as far as there are any; with `revisions` only those made from that content."""
        ...

    async def sample(self, version: EmbedderVersion, size: int) -> Sample:
        """About `size` random chunks, all of them where there are fewer."""
        ...


class Changes(Protocol):
    """The change feed: each document once, at its latest change, late commits never skipped."""

    async def after(self, collection_id: CollectionId, position: Position, limit: int, now: datetime) -> ChangePage:
        """The next changes, at most `limit`. Follow them from the position of the last one, kept with all its fields.

        CollectionNotFound where it was deleted.
        """
        ...

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        """The furthest position among these documents' latest changes."""
        ...


class Lexicon(Protocol):
    """BM25 over whole documents (title and text). Its scores are unbounded and at least 0."""

    async def search(
        self, collection: Collection, text: str, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        """Up to `limit` best documents. Any text is only words: there is no query syntax to get wrong."""
        ...

    async def highlight(
        self, collection: Collection, text: str, passages: Sequence[str]
    ) -> tuple[tuple[str, ...], ...]:
        """For each passage its best fragments: HTML-escaped, matches in <mark>."""
        ...

    async def reached(self, collection: Collection, position: Position) -> None:
        """Return when lexical search sees everything up to `position`. The caller sets the limit of time."""
        ...

    def nudge(self) -> None:
        """Something was just committed here: look at the change feed now rather than at the next turn."""
        ...

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        """Age of the oldest committed change that cannot be found yet; None before the first look."""
        ...


class Encoder(Protocol):
    """One loaded embedder. Its methods block: call them in a thread."""

    @property
    def identity(self) -> Identity: ...

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of one forward pass that suit the device it runs on."""
        ...

    @property
    def streams(self) -> int:
        """Calls of `encode` at once that keep the device busy: more than one where it works apart from the CPU."""
        ...

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """The tokens of each text as [n, 2] code point offsets; no special tokens, no prompt, nothing cut."""
        ...

    def overhead(self, role: Role) -> int:
        """Tokens that every text of this role costs beyond its own: special tokens and prompt."""
        ...

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of each text as the model would see it uncut, overhead included."""
        ...

    def unchanged(self) -> bool:
        """Are the files that it was loaded from still what they were? A swapped model must not go unnoticed."""
        ...

    def encode(self, texts: Sequence[str], role: Role) -> VectorArray:
        """One forward pass over all of them; rows of length 1, float32. Unusable rows stay as the model gave them."""
        ...


class Embedders(Protocol):
    """The models that this process can run."""

    def resolve(self, spec: EmbedderSpec) -> EmbedderSpec:
        """Name the model that "default" stands for; Invalid where the model is not one that the operator allows."""
        ...

    def models(self) -> Mapping[str, Encoder | None]:
        """The models that may be named, the default one first, each with its encoder where that is in memory."""
        ...

    async def get(self, spec: EmbedderSpec) -> Encoder:
        """Load once, then answer from memory. ModelUnavailable where it cannot be loaded."""
        ...

    async def forget(self, spec: EmbedderSpec) -> None:
        """Let go of what was loaded: the next `get` loads it anew."""
        ...

    async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> VectorArray:
        """Encode with what concurrent callers ask for, as one batch. Overloaded where too much waits."""
        ...


class Reranker(Protocol):
    """A cross-encoder: reads query and passage together."""

    @property
    def name(self) -> str: ...

    async def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """Relevance of each passage in [0, 1]. ModelUnavailable where it cannot be loaded."""
        ...
