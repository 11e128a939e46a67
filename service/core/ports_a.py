"""What the stories need from the outside, one Protocol each. Adapters live in `store/` and `embedder/`.

The same contract suite (`tests/contract`) runs on the in-memory fakes and on the real adapters. Every write names its
own time (`now`), so that a story and its tests own the clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from service.core.domain import (
    Accepted,
    Candidate,
    ChangePage,
    Collection,
    CollectionId,
    DensePlan,
    Document,
    DocumentId,
    EmbedderSpec,
    Encoded,
    FailedDocument,
    Filter,
    Job,
    Lane,
    Passing,
    Position,
    QueueStatus,
    Role,
    StoredDocument,
    Vector,
    VersionNumber,
)
from service.core.domain import Vectors as VectorArray
from service.core.query_syntax import Highlights, Words
from service.core.versions import EmbedderVersion, Identity, Sample


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

    async def score(
        self, version: EmbedderVersion, vector: Vector, ids: Sequence[DocumentId], chunks: int = 1
    ) -> tuple[Candidate, ...]:
        """The best `chunks` chunks of each of these documents with their exact cosines.

        Documents without vectors are left out.
        """
        ...

    async def directions(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Vector]:
        """The mean direction of all chunks of each of these documents.

        Left out: those that are not there, or not with vectors of their present content, and those whose chunks cancel
        each other.
        """
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


LexiconState = Literal["ready", "rebuilding", "building"]
"""Of a collection's lexical index. `rebuilding`: that of its former language answers until the new one is complete."""


class Lexicon(Protocol):
    """BM25 over whole documents (title and text). Its scores are unbounded and at least 0."""

    async def search(
        self, collection: Collection, words: Words, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        """Up to `limit` best documents, of those that fulfil the wishes."""
        ...

    async def satisfying(
        self, collection: Collection, words: Words, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        """Those of `ids` that fulfil the wishes."""
        ...

    async def unsaid(self, collection: Collection, words: Words) -> tuple[str, ...]:
        """The quoted phrases that no document says, and that bind nobody therefore."""
        ...

    async def ceiling(self, collection: Collection, words: Words) -> float:
        """The highest score that any document could have for these words, those that no document says included."""
        ...

    async def frequencies(self, collection: Collection, words: Words) -> tuple[int, ...]:
        """For each different word that is looked for, how many documents say it; deleted ones may count for a while."""
        ...

    async def highlight(self, collection: Collection, words: Words, passages: Sequence[str]) -> tuple[Highlights, ...]:
        """Where each passage says what is looked for."""
        ...

    def state(self, collection: Collection) -> LexiconState: ...

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


@runtime_checkable
class Unscaled(Protocol):
    """An encoder that also knows how long its vectors were before they were brought to length 1. Blocks, too."""

    def norms(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]: ...


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a cross-encoder made of passages: the probability of each to be relevant, in their order.

    `truncated`: of how many it did not see everything, for they are longer than it takes with the query.
    """

    scores: tuple[float, ...]
    truncated: int = 0


class Reranker(Protocol):
    """A cross-encoder: reads query and passage together."""

    @property
    def name(self) -> str: ...

    @property
    def portion(self) -> int:
        """Passages of one `read` that suit the device it runs on, for who can do with less than all."""
        ...

    async def read(self, query: str, passages: Sequence[str]) -> Reading:
        """Judge each passage. Cancelled, it leaves out what has not begun yet.

        ModelUnavailable where the model cannot be loaded or fails, Overloaded where too much waits for it.
        """
        ...
