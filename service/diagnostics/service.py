"""The diagnosis of a space: what its vectors tell about the model that made them.

sample    random chunks of the version, and the texts of some of them
query     a few words of each text, encoded as a query: they should lie near the text that they are from
compare   the texts of vectors that lie at nearly one place: are they equal too?
measure   the shape of the sample (`measure.py`), in a child process, and judge each measure in words (`thresholds.py`)

Time and memory are bounded by the size of the sample: a second for 2,000 vectors of 384 dimensions, beside what it
takes to encode 200 short texts.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from service.core import metrics
from service.core.child_process import ChildProcess, ComputationTurns
from service.core.collections import Collection
from service.core.errors import Conflict, ModelUnavailable, Overloaded, SpaceRefused, VersionNotFound
from service.core.ids import CollectionId, DocumentId, Vectors, VersionNumber
from service.core.periodic import for_each_version
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.vector_math import finite
from service.core.verdict import VERDICTS, Verdict
from service.core.versions import COMPLETE_STATES, EmbedderVersion, VectorSample
from service.diagnostics import lexical_similarity, measure
from service.diagnostics.geometry import MIN_ROWS
from service.diagnostics.measure import GeometryPicture, GeometrySample
from service.diagnostics.neighbours import Indices
from service.diagnostics.thresholds import GeometryMeasure
from service.spaces.sample_cache import SampleCache
from service.spaces.sampling import CollectionSampler

SAMPLE_SIZE, MIN_SAMPLE, MAX_SAMPLE = 2_000, 100, 5_000
KEPT_SECONDS, GROWTH, MAX_KEPT = 600.0, 1.1, 64
"""How long, up to which growth of the space, and how many diagnoses are remembered."""
REGULAR_SECONDS = 6 * 3600.0
"""Versions that serve are diagnosed this often without a request, for the metric."""
EXCERPTS, NORMS = 200, 48
"""Texts of which a few words are encoded as queries, and texts that are encoded again for their norms."""
ENCODING_SECONDS = 30.0
"""Longest that excerpts are encoded; the diagnosis uses those that are done by then."""
_TEXTS_AT_ONCE = 16
_TEXT_LENGTH = 2_000
"""Code points of a text that are read."""
_MAX_COMPARED = 1_000
"""Rows whose texts are compared. The texts of further ones are taken to be different."""

Key = tuple[CollectionId, VersionNumber, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    """A chunk that is among the nearest of many others. `occurrences`: of how many. `id`: of its document."""

    id: DocumentId
    chunk: int
    title: str
    occurrences: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryReport:
    """`verdict` None: there was too little to measure, for this `reason`. `chunks`: of the sample, row by row."""

    version: VersionNumber
    rows: int
    chunks: tuple[tuple[DocumentId, int], ...]
    verdict: Verdict | None = None
    reason: str | None = None
    measures: tuple[GeometryMeasure, ...] = ()
    picture: GeometryPicture | None = None
    hubs: tuple[Hub, ...] = ()


@dataclass(kw_only=True, eq=False)
class DiagnosticsService:
    """Diagnoses versions on request and regularly, one at a time, and remembers the reports for some minutes."""

    collections: Collections
    versions: Versions
    vectors: VectorStore
    documents: Documents
    sampling: CollectionSampler
    turns: ComputationTurns = field(default_factory=ComputationTurns)

    def __post_init__(self) -> None:
        self._reports = SampleCache[Key, GeometryReport](
            seconds=KEPT_SECONDS, growth=GROWTH, capacity=MAX_KEPT, outdated_seconds=REGULAR_SECONDS
        )

    async def diagnose(
        self, collection: Collection, number: VersionNumber | None, size: int = SAMPLE_SIZE
    ) -> tuple[GeometryReport, GeometryReport | None]:
        """The diagnosis of a version, by default the active one, and of the version before it that still has vectors.

        Raises VersionNotFound; Conflict where the version failed or was retired; Overloaded where too many wait.
        """
        wanted = number or collection.active_version
        versions = {version.number: version for version in await self.versions.of(collection.id)}
        if wanted not in versions:
            raise VersionNotFound(f"collection {collection.name} has no embedder version {wanted}")
        if not versions[wanted].written:
            raise Conflict(f"version {wanted} is {versions[wanted].state}: its vectors are gone")
        report = await self._report(collection, versions[wanted], size)
        before = max((one.number for one in versions.values() if one.number < wanted and one.written), default=None)
        return report, None if before is None else await self._report(collection, versions[before], size)

    async def diagnose_due(self) -> None:
        """Diagnose the versions that serve or soon may, for the metric."""

        async def work(version: EmbedderVersion) -> None:
            if await self._is_due(version):
                await self._report(await self.collections.get(version.collection_id), version, SAMPLE_SIZE)

        await for_each_version(await self.versions.in_states(COMPLETE_STATES), work, failure_message="not diagnosed")

    async def _is_due(self, version: EmbedderVersion) -> bool:
        """Never diagnosed, not for hours, or when there was less than half of what is there now."""
        rows = (await self.versions.status(version)).rows
        known = self._reports.entry((version.collection_id, version.number, SAMPLE_SIZE))
        return rows >= MIN_ROWS and (
            known is None or time.monotonic() >= known.computed_at + REGULAR_SECONDS or rows > 2 * known.rows
        )

    async def _report(self, collection: Collection, version: EmbedderVersion, size: int) -> GeometryReport:
        key = (collection.id, version.number, size)
        rows = (await self.versions.status(version)).rows
        if (known := self._reports.get(key, rows)) is not None:
            return known

        async def diagnose() -> GeometryReport:
            async with self.turns.child() as process:
                return await self._diagnose(collection, version, size, rows, process)

        return await self._reports.get_or_compute(key, diagnose, rows)

    async def _diagnose(
        self, collection: Collection, version: EmbedderVersion, size: int, rows: int, process: ChildProcess
    ) -> GeometryReport:
        sample = await self.vectors.sample(version, size)
        rows = max(len(sample.chunks), rows)  # which is an estimate
        report = GeometryReport(version=version.number, rows=rows, chunks=sample.chunks)
        labels = {"collection": collection.name, "version": str(version.number)}
        if len(sample.chunks) < MIN_ROWS:
            reason = f"{len(sample.chunks)} vectors are too few to tell (at least {MIN_ROWS})"
            metrics.GEOMETRY_VERDICT.remove_by_labels(labels)
            return replace(report, reason=reason)
        texts, text_rows = await self._read_texts(collection, sample)
        excerpts, excerpt_rows, no_excerpts = await self._embed_excerpts(version, texts, text_rows, process)
        documents = np.unique([document_id for document_id, _ in sample.chunks], return_inverse=True)[1]
        near = await process.run(measure.document_neighbours, sample.vectors, documents)
        pairs = await process.run(measure.near_duplicate_pairs, near)
        measured = GeometrySample(
            rows=sample.vectors,
            documents=documents,
            texts=texts,
            text_rows=text_rows,
            excerpts=excerpts,
            excerpt_rows=excerpt_rows,
            different=await self._with_different_texts(collection, sample, pairs),
            norms=await self._norms(version, texts),
            no_excerpts=no_excerpts,
        )
        found = await process.run(measure.measure_sample, measured, near)
        if found.verdict is not None:
            metrics.GEOMETRY_VERDICT.labels(**labels).set(VERDICTS.index(found.verdict))
        hubs = await self._hubs(collection, sample, found.picture)
        return replace(report, verdict=found.verdict, measures=found.measures, picture=found.picture, hubs=hubs)

    async def _read_texts(self, collection: Collection, sample: VectorSample) -> tuple[list[str], Indices]:
        """The texts of the first chunks, as far as they are what was encoded, with the numbers of their rows."""
        places = sample.places[: measure.LEXICAL_ROWS]
        passages = await self.documents.passages(collection.id, places, None, _TEXT_LENGTH)
        known = [(row, passage) for row, passage in enumerate(passages) if passage is not None]
        texts = [passage.text[:_TEXT_LENGTH] if passage.text.strip() else passage.title for _, passage in known]
        return texts, np.array([row for row, _ in known], np.intp)

    async def _embed_excerpts(
        self, version: EmbedderVersion, texts: list[str], text_rows: Indices, process: ChildProcess
    ) -> tuple[Vectors, Indices, str]:
        """The vectors of a few words of some texts and the rows of these texts; or none, and the reason."""
        nothing = np.zeros((0, version.dimensions), np.float32), np.zeros(0, np.intp)
        if version.spec.external:
            return *nothing, "the client makes the vectors, so texts cannot be encoded here"
        excerpts = await process.run(lexical_similarity.sample_excerpts, texts, EXCERPTS)
        if len(excerpts) < measure.MIN_TEXTS:
            return *nothing, ""
        parts: list[Vectors] = []
        deadline = time.monotonic() + ENCODING_SECONDS
        try:
            for at in range(0, len(excerpts), _TEXTS_AT_ONCE):
                part = [one.text for one in excerpts[at : at + _TEXTS_AT_ONCE]]
                parts.append(await self.sampling.embed_queries(version, part))
                if time.monotonic() > deadline:
                    break
        except (ModelUnavailable, SpaceRefused, Overloaded) as error:
            return *nothing, error.detail
        vectors = np.concatenate(parts)
        if len(vectors) < measure.MIN_TEXTS:
            return *nothing, "the model had no time for enough queries; look again when there is less to do"
        usable = finite(vectors)
        rows = text_rows[[one.source for one in excerpts[: len(vectors)]]]
        return vectors[usable], rows[usable], ""

    async def _norms(self, version: EmbedderVersion, texts: list[str]) -> npt.NDArray[np.float64] | None:
        """The lengths of vectors before normalisation; None where they are not known."""
        norms = None
        with suppress(ModelUnavailable, SpaceRefused):  # the excerpts that could not be encoded already say why
            if not version.spec.external:
                norms = await self.sampling.document_norms(version, texts[:NORMS])
        return None if norms is None else norms.astype(np.float64)

    async def _with_different_texts(
        self, collection: Collection, sample: VectorSample, pairs: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """The pairs whose texts are not the same but for white space and letter case."""
        rows = list(dict.fromkeys(row for pair in pairs for row in pair))[:_MAX_COMPARED]
        places = [sample.places[row] for row in rows]
        passages = await self.documents.passages(collection.id, places, None, _TEXT_LENGTH)
        texts = {
            row: None if passage is None else " ".join(f"{passage.title} {passage.text}".lower().split())
            for row, passage in zip(rows, passages, strict=True)
        }
        known = [pair for pair in pairs if all(texts.get(row, "") is not None for row in pair)]
        return [(one, other) for one, other in known if texts.get(one, one) != texts.get(other, other)]

    async def _hubs(self, collection: Collection, sample: VectorSample, picture: GeometryPicture) -> tuple[Hub, ...]:
        found = await self.documents.get(collection.id, [sample.chunks[row][0] for row, _ in picture.hubs])
        titles = {document_id: document.title for document_id, document in found.items()}
        return tuple(
            Hub(id=document_id, chunk=chunk, title=titles.get(document_id, ""), occurrences=count)
            for (document_id, chunk), count in ((sample.chunks[row], count) for row, count in picture.hubs)
        )
