"""The data path in memory: documents, queue, vectors, change feed and lexicon over one `FakeStore`.

Small enough to be obviously right, and held to the same contract suites as the adapters of PostgreSQL. Every method
runs without awaiting anything, so each is a transaction of its own.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from service.core.change_feed import Change, ChangePage, Position
from service.core.collections import Collection
from service.core.documents import Accepted, Document, StoredDocument
from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.filters import Filter, matches
from service.core.ids import CollectionId, DocumentId, Vector, VersionNumber
from service.core.jobs import ClaimedJob, EncodedDocument, FailedDocument, Job, Lane, QueueStatus
from service.core.ports.lexicon import LexiconState
from service.core.ports.vectors import VectorQuery
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate, FilterMatch, Passage
from service.core.vector_math import direction
from service.core.versions import EmbedderVersion, VectorSample, VersionState
from tests.fakes_catalog import FakeCollections, FakeVersions

_WORD = re.compile(r"\w+")


@dataclass
class Row:
    """A document or, where `document` is None, its tombstone."""

    document: StoredDocument | None
    revision: int


@dataclass
class Waiting:
    """A job: `lease` None is free, `set_aside_at` None is not given up. `priority` as `store/queue.py` tells them."""

    content_revision: int
    enqueued_at: datetime
    available_at: datetime
    priority: int = 0
    lease: str | None = None
    worker: str | None = None
    lost_leases: int = 0
    attempts: int = 0
    reason: str = ""
    set_aside_at: datetime | None = None


@dataclass
class StoredChunk:
    """One chunk as it is stored, in the precision of its version's storage."""

    content_revision: int
    start: int
    end: int
    embedding: np.ndarray


class FakeStore:
    """What PostgreSQL holds. `collections` knows which there are and which versions of them are written."""

    def __init__(self, collections: FakeCollections | None = None) -> None:
        self.collections = collections or FakeCollections()
        self.versions = FakeVersions(self.collections, self)
        self.documents: dict[tuple[CollectionId, DocumentId], Row] = {}
        self.jobs: dict[tuple[CollectionId, DocumentId, VersionNumber], Waiting] = {}
        self.vectors: dict[tuple[CollectionId, VersionNumber], dict[tuple[DocumentId, int], StoredChunk]] = {}
        self.changes: dict[tuple[CollectionId, DocumentId], tuple[int, datetime]] = {}
        self._transactions = itertools.count(1)

    def begin(self, collection_id: CollectionId) -> int:
        """The id of a new transaction that writes to a collection."""
        if collection_id not in self.collections.rows:
            raise CollectionNotFound
        return next(self._transactions)

    def living(self, collection_id: CollectionId) -> Iterator[StoredDocument]:
        for (owner, _), row in sorted(self.documents.items(), key=lambda item: item[0][1].encode()):
            if owner == collection_id and row.document is not None:
                yield row.document

    def living_one(self, collection_id: CollectionId, document_id: DocumentId) -> StoredDocument | None:
        row = self.documents.get((collection_id, document_id))
        return None if row is None else row.document

    def space(self, version: EmbedderVersion) -> dict[tuple[DocumentId, int], StoredChunk]:
        known = self.collections.versions.get(version.collection_id, ())
        if version.number not in {one.number for one in known if one.state is not VersionState.RETIRED}:
            raise VersionNotFound
        return self.vectors.setdefault((version.collection_id, version.number), {})

    def priority(self, version: EmbedderVersion) -> int:
        """Of a document that was just written."""
        if version.spec.external:
            return 3
        return 0 if version.number == self.collections.rows[version.collection_id].active_version else 1

    def held(self, jobs: Sequence[Job]) -> list[tuple[Job, Waiting]]:
        """Those of the jobs that are still leased to whoever names them, for the same content."""
        pairs = ((job, self.jobs.get((job.collection_id, job.document_id, job.version))) for job in jobs)
        return [
            (job, waiting)
            for job, waiting in pairs
            if waiting and waiting.lease == job.lease and waiting.content_revision == job.content_revision
        ]


class FakeDocuments:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def put(
        self,
        collection_id: CollectionId,
        documents: Sequence[Document],
        now: datetime,
        vectors_of: EmbedderVersion | None = None,
    ) -> tuple[Accepted, ...]:
        if not documents:
            return ()
        xid = self._store.begin(collection_id)
        if vectors_of is not None:
            known = {version.number: version for version in self._store.collections.versions[collection_id]}
            present = known.get(vectors_of.number)
            if present is None or not (present.written and present.spec.external):
                raise VersionNotFound
        accepted = [self._put(collection_id, document, now, xid) for document in documents]
        if vectors_of is not None:
            for at, document in enumerate(documents):
                if self._bring(vectors_of, document) and accepted[at].status == "unchanged":
                    accepted[at] = dataclasses.replace(accepted[at], status="updated")
        return tuple(accepted)

    def _bring(self, version: EmbedderVersion, document: Document) -> bool:
        """Is its vector another one now?"""
        if document.vector is None:
            return False
        stored = self._store.documents[version.collection_id, document.id].document
        assert stored is not None
        vector = np.array(document.vector)
        chunk = StoredChunk(
            stored.content_revision, 0, len(document.text), _stored(version, vector / np.linalg.norm(vector))
        )
        self._store.jobs.pop((version.collection_id, document.id, version.number), None)
        space = self._store.space(version)
        old = space.get((document.id, 0))
        space[document.id, 0] = chunk
        same = old is not None and old.content_revision == chunk.content_revision
        return not (same and old is not None and np.array_equal(old.embedding, chunk.embedding))

    def _put(self, collection_id: CollectionId, document: Document, now: datetime, xid: int) -> Accepted:
        store, key = self._store, (collection_id, document.id)
        row = store.documents.get(key, Row(None, 0))
        old = row.document
        same_content = old is not None and (old.title, old.text) == (document.title, document.text)
        if old is not None and same_content and old.metadata == document.metadata:
            return Accepted(id=document.id, status="unchanged", revision=row.revision)
        revision = row.revision + 1
        new = StoredDocument(
            id=document.id,
            title=document.title,
            text=document.text,
            metadata=dict(document.metadata),
            revision=revision,
            content_revision=old.content_revision if old is not None and same_content else revision,
            created_at=now if old is None else old.created_at,
            updated_at=now if old is None else max(now, old.created_at + timedelta(microseconds=1)),
        )
        store.documents[key] = Row(new, revision)
        store.changes[key] = (xid, now)
        if not same_content:
            for version in store.collections.versions[collection_id]:
                if version.written:
                    store.jobs[*key, version.number] = Waiting(revision, now, now, store.priority(version))
        return Accepted(id=document.id, status="created" if old is None else "updated", revision=revision)

    async def delete(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime, where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        store, gone = self._store, []
        xid = store.begin(collection_id)
        for document_id in ids:
            row = store.documents.get((collection_id, document_id))
            if row is None or row.document is None:
                continue
            if where is not None and not matches(where, row.document.metadata):
                continue
            row.document, row.revision = None, row.revision + 1
            store.changes[collection_id, document_id] = (xid, now)
            store.jobs = {key: job for key, job in store.jobs.items() if key[:2] != (collection_id, document_id)}
            for (owner, _), space in store.vectors.items():
                for chunk in [chunk for chunk in space if owner == collection_id and chunk[0] == document_id]:
                    del space[chunk]
            gone.append(document_id)
        return tuple(gone)

    async def get(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Mapping[DocumentId, StoredDocument]:
        return {document.id: document for document in self._store.living(collection_id) if document.id in set(ids)}

    async def page(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter | None
    ) -> tuple[StoredDocument, ...]:
        filter_match = (
            document
            for document in self._store.living(collection_id)
            if document.id.encode() > (after or "").encode() and (where is None or matches(where, document.metadata))
        )
        return tuple(itertools.islice(filter_match, limit))

    async def match_filter(self, collection_id: CollectionId, where: Filter, cap: int) -> FilterMatch:
        living = list(self._store.living(collection_id))
        ids = tuple(document.id for document in living if matches(where, document.metadata))[: cap + 1]
        return FilterMatch(ids=ids if len(ids) <= cap else None, count=len(ids), total=len(living))

    async def filter_ids(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        found = await self.get(collection_id, ids)
        return frozenset(document.id for document in found.values() if matches(where, document.metadata))

    async def passages(
        self, collection_id: CollectionId, candidates: Sequence[Candidate], where: Filter | None, default_length: int
    ) -> tuple[Passage | None, ...]:
        def passage(candidate: Candidate) -> Passage | None:
            document = self._store.living_one(collection_id, candidate.document_id)
            if document is None or document.content_revision != candidate.content_revision:
                return None
            if where is not None and not matches(where, document.metadata):
                return None
            start = candidate.start or 0
            text = document.text[start : default_length if candidate.end is None else candidate.end]
            return Passage(
                title=document.title,
                text=text,
                start=start,
                end=start + len(text),
                metadata=document.metadata,
                revision=document.revision,
            )

        return tuple(passage(candidate) for candidate in candidates)


class FakeQueue:
    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._leases = itertools.count(1)

    async def claim(
        self,
        versions: Sequence[EmbedderVersion],
        limit: int,
        worker: str,
        now: datetime,
        lease: timedelta,
        lane: Lane = "live",
    ) -> tuple[ClaimedJob, ...]:
        store, ticket = self._store, f"00000000-0000-0000-0000-{next(self._leases):012d}"
        spaces = {(version.collection_id, version.number) for version in versions}
        priorities = {"live": (0, 1), "backfill": (2,)}[lane]
        available = [
            (key, waiting)
            for key, waiting in store.jobs.items()
            if (key[0], key[2]) in spaces
            and waiting.priority in priorities
            and waiting.set_aside_at is None
            and waiting.available_at <= now
        ]
        available.sort(key=lambda item: (item[1].priority, item[1].enqueued_at, item[0][1].encode()))
        claimed = []
        for (collection_id, document_id, number), waiting in available[:limit]:
            document = store.living_one(collection_id, document_id)
            if document is None or document.content_revision != waiting.content_revision:
                del store.jobs[collection_id, document_id, number]
                continue
            waiting.lost_leases += waiting.worker is not None
            waiting.lease, waiting.worker, waiting.available_at = ticket, worker, now + lease
            job = Job(
                collection_id=collection_id,
                document_id=document_id,
                version=number,
                content_revision=waiting.content_revision,
                attempts=waiting.attempts,
                lease=ticket,
            )
            claimed.append(ClaimedJob(job=job, document=document, lost_leases=waiting.lost_leases))
        return tuple(claimed)

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        for _, waiting in self._store.held(jobs):
            waiting.available_at = until

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        for _, waiting in self._store.held(jobs):
            waiting.lease, waiting.worker, waiting.available_at = None, None, available

    async def record_failure(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        gone = []
        for job, waiting in self._store.held(jobs):
            waiting.attempts += 1
            waiting.reason, waiting.worker, waiting.available_at = reason, None, available
            if waiting.attempts >= max_attempts:
                waiting.lease, waiting.set_aside_at = None, now
                gone.append(job.document_id)
        return tuple(gone)

    def _of(self, collection_id: CollectionId) -> dict[tuple[DocumentId, VersionNumber], Waiting]:
        return {key[1:]: waiting for key, waiting in self._store.jobs.items() if key[0] == collection_id}

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus:
        jobs = [job for (_, number), job in self._of(collection_id).items() if number == version]
        since = [job.enqueued_at for job in jobs if job.set_aside_at is None]
        oldest = (now - min(since, default=now)).total_seconds()
        return QueueStatus(pending=len(since), failed=len(jobs) - len(since), oldest_seconds=max(0.0, oldest))

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]:
        latest = {
            document_id: FailedDocument(
                id=document_id,
                version=number,
                attempts=job.attempts,
                reason=job.reason,
                failed_at=job.set_aside_at,
            )
            for (document_id, number), job in sorted(self._of(collection_id).items(), key=lambda item: item[0][1])
            if job.set_aside_at is not None and document_id.encode() > (after or "").encode()
        }
        return tuple(sorted(latest.values(), key=lambda one: one.id.encode()))[:limit]

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        failed = [(key, job) for key, job in self._of(collection_id).items() if job.set_aside_at is not None]
        for (document_id, number), job in failed:
            fresh = Waiting(job.content_revision, job.enqueued_at, now, job.priority)
            self._store.jobs[collection_id, document_id, number] = fresh
        return len(failed)

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        jobs = self._of(collection_id)
        return tuple(id_ for id_ in ids if (job := jobs.get((id_, version))) and job.set_aside_at is None)

    async def dead_lettered(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        jobs = self._of(collection_id)
        return tuple(id_ for id_ in ids if (job := jobs.get((id_, version))) and job.set_aside_at is not None)


class FakeVectors:
    """Whatever the plan, the scan is exact."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def write(self, version: EmbedderVersion, encoded: Sequence[EncodedDocument]) -> frozenset[DocumentId]:
        store, space = self._store, self._store.space(version)
        own = [
            one
            for one in encoded
            if (one.job.collection_id, one.job.version) == (version.collection_id, version.number)
        ]
        ours = {job for job, _ in store.held([one.job for one in own])}
        for one in own:
            job = one.job
            if job not in ours:
                continue
            del store.jobs[job.collection_id, job.document_id, job.version]
            for key in [key for key in space if key[0] == job.document_id]:
                del space[key]
            for chunk, vector in zip(one.chunks, one.vectors, strict=True):
                space[job.document_id, chunk.number] = StoredChunk(
                    job.content_revision, chunk.start, chunk.end, _stored(version, vector)
                )
        return frozenset(job.document_id for job in ours)

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        def passes(document_id: DocumentId) -> bool:
            if query.within is not None:
                return document_id in query.within
            document = self._store.living_one(query.version.collection_id, document_id)
            return query.where is None or (document is not None and matches(query.where, document.metadata))

        ranked = self._ranked(query.version, query.vector)
        return tuple(one for one in ranked if passes(one.document_id))[: query.limit]

    async def score(
        self, version: EmbedderVersion, vector: Vector, ids: Sequence[DocumentId], chunks: int = 1
    ) -> tuple[Candidate, ...]:
        best: dict[DocumentId, list[Candidate]] = {id_: [] for id_ in ids}
        for one in self._ranked(version, vector):
            if one.document_id in best:
                best[one.document_id].append(one)
        return tuple(one for ranked in best.values() for one in ranked[:chunks])

    async def directions(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Vector]:
        rows: dict[DocumentId, list[np.ndarray]] = {}
        for (document_id, _), row in self._store.space(version).items():
            document = self._store.living_one(version.collection_id, document_id)
            if document_id in ids and document is not None and document.content_revision == row.content_revision:
                rows.setdefault(document_id, []).append(row.embedding.astype(np.float32))
        means = {document_id: direction(np.mean(own, axis=0)) for document_id, own in rows.items()}
        return {document_id: mean for document_id, mean in means.items() if mean is not None}

    async def get(
        self,
        version: EmbedderVersion,
        chunks: Sequence[tuple[DocumentId, int]],
        revisions: Sequence[int] | None = None,
    ) -> Mapping[tuple[DocumentId, int], Vector]:
        space = self._store.space(version)
        return {
            key: _unit(space[key].embedding)
            for at, key in enumerate(chunks)
            if key in space and (revisions is None or revisions[at] == space[key].content_revision)
        }

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        space = self._store.space(version)
        chunks = random.sample(sorted(space), min(size, len(space)))
        rows = [_unit(space[key].embedding) for key in chunks]
        return VectorSample(
            chunks=tuple(chunks),
            vectors=np.stack(rows) if rows else np.empty((0, version.dimensions), np.float32),
            places=tuple(_place(*key, space[key]) for key in chunks),
        )

    def _ranked(self, version: EmbedderVersion, vector: Vector) -> list[Candidate]:
        query = _unit(_stored(version, vector))
        candidates = [
            Candidate(
                document_id=document_id,
                content_revision=row.content_revision,
                score=float(_unit(row.embedding) @ query),
                chunk=number,
                start=row.start,
                end=row.end,
            )
            for (document_id, number), row in self._store.space(version).items()
        ]
        return sorted(candidates, key=lambda one: -one.score)


class FakeChanges:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def after(self, collection_id: CollectionId, position: Position, limit: int, now: datetime) -> ChangePage:
        if collection_id not in self._store.collections.rows:
            raise CollectionNotFound
        feed = sorted(
            (Position(xid=xid, document_id=document_id), changed_at)
            for (owner, document_id), (xid, changed_at) in self._store.changes.items()
            if owner == collection_id
        )
        waiting = [(at, changed_at) for at, changed_at in feed if at > position]
        lag = max(0.0, (now - waiting[0][1]).total_seconds()) if waiting else 0.0
        if position.xid and position.xid > max((xid for xid, _ in self._store.changes.values()), default=0):
            return ChangePage(changes=(), lag_seconds=lag, rebuild=True)
        changes = (
            Change(
                position=at,
                document_id=DocumentId(at.document_id),
                document=self._store.living_one(collection_id, DocumentId(at.document_id)),
            )
            for at, _ in waiting[:limit]
        )
        return ChangePage(changes=tuple(changes), lag_seconds=lag)

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        known = ((id_, self._store.changes.get((collection_id, id_))) for id_ in ids)
        return max((Position(xid=at[0], document_id=id_) for id_, at in known if at), default=Position())


class FakeLexicon:
    """Scores by the number of different query words in a document; knows no typos. Always caught up."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def search(
        self, collection: Collection, words: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        wanted, has_constraints = _words(words.text), self._binding(collection, words)
        candidates = [
            Candidate(document_id=document.id, content_revision=document.content_revision, score=float(score))
            for document in self._store.living(collection.id)
            if (score := len(wanted & _words(f"{document.title} {document.text}")))
            and (within is None or document.id in within)
            and _satisfies(document, has_constraints, words.excluded)
        ]
        return tuple(sorted(candidates, key=lambda one: -one.score)[:limit])

    async def matching_constraints(
        self, collection: Collection, words: ParsedQuery, ids: Sequence[DocumentId]
    ) -> frozenset[DocumentId]:
        living, has_constraints = self._store.living(collection.id), self._binding(collection, words)
        return frozenset(one.id for one in living if one.id in ids and _satisfies(one, has_constraints, words.excluded))

    async def unmatched_terms(self, collection: Collection, words: ParsedQuery) -> tuple[str, ...]:
        living = list(self._store.living(collection.id))
        return tuple(one for one in words.quoted if not any(_satisfies(document, [one], []) for document in living))

    async def max_score(self, collection: Collection, words: ParsedQuery) -> float:
        return float(len(_words(words.text)))

    async def document_frequencies(self, collection: Collection, words: ParsedQuery) -> tuple[int, ...]:
        said = [_words(f"{document.title} {document.text}") for document in self._store.living(collection.id)]
        return tuple(sum(word in one for one in said) for word in _words(words.text))

    def _binding(self, collection: Collection, words: ParsedQuery) -> list[str]:
        living = list(self._store.living(collection.id))
        said = [one for one in words.quoted if any(_satisfies(document, [one], []) for document in living)]
        return [*words.required, *said]

    async def highlight(
        self, collection: Collection, words: ParsedQuery, passages: Sequence[str]
    ) -> tuple[Highlights, ...]:
        wanted = _words(words.text)
        return tuple(_highlights(passage, wanted) for passage in passages)

    def state(self, collection: Collection) -> LexiconState:
        return "ready"

    async def wait_until(self, collection: Collection, position: Position) -> None: ...

    def wake(self) -> None: ...

    def lag_seconds(self, collection_id: CollectionId) -> float | None:
        return 0.0


def _place(document_id: DocumentId, chunk: int, row: StoredChunk) -> Candidate:
    return Candidate(
        document_id=document_id,
        content_revision=row.content_revision,
        score=1.0,
        chunk=chunk,
        start=row.start,
        end=row.end,
    )


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _satisfies(document: StoredDocument, required: Sequence[str], excluded: Sequence[str]) -> bool:
    said = _phrase(f"{document.title} {document.text}")
    return all(_phrase(one) in said for one in required) and not any(_phrase(one) in said for one in excluded)


def _phrase(text: str) -> str:
    """ParsedQuery side by side, each with a space on both sides."""
    return "".join(f" {word.lower()} " for word in _WORD.findall(text))


def _highlights(passage: str, wanted: set[str]) -> Highlights:
    found = [match for match in _WORD.finditer(passage) if match.group().lower() in wanted]
    return Highlights(
        fragments=tuple(f"<mark>{match.group()}</mark>" for match in found),
        spans=tuple(match.span() for match in found),
    )


def _stored(version: EmbedderVersion, vector: np.ndarray) -> np.ndarray:
    return vector.astype(np.float32 if version.index.storage == "vector" else np.float16)


def _unit(vector: np.ndarray) -> Vector:
    wide = vector.astype(np.float32)
    unit: Vector = wide / np.linalg.norm(wide)
    return unit
