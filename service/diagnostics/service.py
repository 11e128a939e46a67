"""The diagnosis of a space, top to bottom: sample -> read -> ask -> compare -> measure -> judge -> beside the last.

sample    random chunks of the version
read      the texts of some of them
ask       a few words of each, encoded as a question: they should lie near the text that they are from
compare   the texts of vectors that lie at nearly one place: rightly so, or not?
measure   the shape of the sample (`examination.py`), in a thread
judge     each figure, in words (`symptoms.py`)
beside    the same of the version before, where it still stands

One diagnosis at a time, remembered for some minutes, and made anew every few hours for versions that answer. Its time
and memory are bounded by the size of the sample: a second for 2,000 vectors of 384 dimensions beside what encoding 200
short texts takes.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core import metrics
from service.core.collections import Collection
from service.core.errors import Conflict, ModelUnavailable, Overloaded, SpaceRefused, VersionNotFound
from service.core.ids import CollectionId, DocumentId, Vectors, VersionNumber
from service.core.periodic import for_each_version
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore as Spaces
from service.core.ports.versions import Versions
from service.core.vector_math import finite
from service.core.verdict import VERDICTS, Verdict
from service.core.versions import COMPLETE_STATES, EmbedderVersion, VectorSample
from service.diagnostics import lexical_similarity, neighbours
from service.diagnostics.geometry import LEAST_ROWS
from service.diagnostics.measure import (
    LEAST_TEXTS,
    WORDS_ROWS,
    GeometryMeasurements,
    GeometryPicture,
    GeometrySample,
    around,
    measure_sample,
    suspicious,
)
from service.diagnostics.thresholds import GeometryMeasure, worst
from service.spaces.sampling import CollectionSampler

log = logging.getLogger(__name__)

SAMPLE = 2_000
LEAST_SAMPLE, MOST_SAMPLE = 100, 5_000
KEPT_SECONDS = 600.0
GROWN = 1.1
"""Times as many vectors as when it was made, or so many times fewer: made again."""
REGULAR_SECONDS = 6 * 3600.0
"""Versions that answer are looked at so often without anybody asking, for the metric."""
MOST_KEPT = 64
MOST_WAITING = 8
PIECES = 200
NORMS = 48
"""Texts whose vectors are made again, for their lengths."""
ASKING_SECONDS = 30.0
"""Longest that pieces are encoded; what came until then is what is judged by."""
_BATCH = 16
_LENGTH = 2_000
"""Code points of a text that are read."""
_COMPARED = 1_000
"""Rows whose texts are compared; of more, so many and the rest alike."""

Key = tuple[CollectionId, VersionNumber, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    document_id: DocumentId
    chunk: int
    title: str
    occurrences: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometryReport:
    """What was found of one version. `verdict` None: there was too little to tell, for this `reason`.

    `chunks`: of the rows of the sample; `before`: the measures of the version before this one.
    """

    version: VersionNumber
    rows: int
    chunks: tuple[tuple[DocumentId, int], ...]
    verdict: Verdict | None
    reason: str | None
    measures: tuple[GeometryMeasure, ...] = ()
    picture: GeometryPicture | None = None
    hubs: tuple[Hub, ...] = ()


class DiagnosticsService:
    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        vectors: Spaces,
        documents: Documents,
        sampling: CollectionSampler,
    ) -> None:
        self._collections = collections
        self._versions = versions
        self._vectors = vectors
        self._documents = documents
        self._sampling = sampling
        self._known: OrderedDict[Key, tuple[float, int, GeometryReport]] = OrderedDict()
        """When each was made, and of how many rows, as far as the table told."""
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def of(
        self, collection: Collection, number: VersionNumber | None, size: int = SAMPLE
    ) -> tuple[GeometryReport, GeometryReport | None]:
        """Of a version, or of the active one, and of the version before it, where that still has vectors.

        VersionNotFound; Conflict where the version failed or was retired; Overloaded where too many wait already.
        """
        wanted = number or collection.active_version
        versions = {version.number: version for version in await self._versions.of(collection.id)}
        if wanted not in versions:
            raise VersionNotFound(f"collection {collection.name} has no embedder version {wanted}")
        if not versions[wanted].written:
            raise Conflict(f"version {wanted} is {versions[wanted].state}: its vectors are gone")
        report = await self._known_or_new(collection, versions[wanted], size)
        before = max(
            (one for one in versions.values() if one.number < wanted and one.written), key=_number, default=None
        )
        return report, None if before is None else await self._known_or_new(collection, before, size)

    async def tend(self) -> None:
        """Look again at the versions that answer or may soon, for the metric."""

        async def look(version: EmbedderVersion) -> None:
            if await self._due(version):
                collection = await self._collections.get(version.collection_id)
                await self._known_or_new(collection, version, SAMPLE)

        await for_each_version(await self._versions.in_states(COMPLETE_STATES), look, failure_message="not diagnosed")

    async def _due(self, version: EmbedderVersion) -> bool:
        """Never looked at, not for hours, or only when there was less than half of what is there now."""
        rows = (await self._versions.status(version)).rows
        key = (version.collection_id, version.number, SAMPLE)
        if rows < LEAST_ROWS or key not in self._known:
            return rows >= LEAST_ROWS
        made, then, _ = self._known[key]
        return time.monotonic() >= made + REGULAR_SECONDS or rows > 2 * then

    async def _known_or_new(self, collection: Collection, version: EmbedderVersion, size: int) -> GeometryReport:
        key = (collection.id, version.number, size)
        rows = (await self._versions.status(version)).rows
        if (known := self._remembered(key, rows)) is not None:
            return known
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many spaces wait to be diagnosed; try again later", retry_after=5.0)
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                if (known := self._remembered(key, rows)) is not None:  # whoever was before us wanted the same
                    return known
                report = await self._diagnosed(collection, version, size, rows)
        finally:
            self._waiting -= 1
        self._known[key] = (time.monotonic(), rows, report)
        self._known.move_to_end(key)
        while len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)
        return report

    def _remembered(self, key: Key, rows: int) -> GeometryReport | None:
        if key not in self._known:
            return None
        made, then, report = self._known[key]
        fresh = time.monotonic() < made + KEPT_SECONDS and then / GROWN <= rows <= then * GROWN
        return report if fresh else None

    # ------------------------------------------------------------ the story

    async def _diagnosed(
        self, collection: Collection, version: EmbedderVersion, size: int, rows: int
    ) -> GeometryReport:
        sample = await self._vectors.sample(version, size)
        rows = max(len(sample.chunks), rows)  # which is an estimate
        labels = (collection.name, str(version.number))
        if len(sample.chunks) < LEAST_ROWS:
            reason = f"{len(sample.chunks)} vectors are too few to tell (at least {LEAST_ROWS})"
            metrics.GEOMETRY_VERDICT.remove_by_labels({"collection": labels[0], "version": labels[1]})
            return GeometryReport(version=version.number, rows=rows, chunks=sample.chunks, verdict=None, reason=reason)
        texts, text_rows = await self._read(collection, sample)
        pieces, piece_rows, no_pieces = await self._ask(version, texts, text_rows)
        lengths = await self._lengths(version, texts)
        documents = _numbers(sample)
        near = await asyncio.to_thread(around, sample.vectors, documents)
        different = await self._different(collection, sample, await asyncio.to_thread(suspicious, near))
        subject = GeometrySample(
            rows=sample.vectors,
            documents=documents,
            texts=texts,
            text_rows=text_rows,
            pieces=pieces,
            piece_rows=piece_rows,
            different=different,
            lengths=lengths,
            **({"no_pieces": no_pieces} if no_pieces else {}),
        )
        findings = await asyncio.to_thread(measure_sample, subject, near)
        verdict = worst(findings.measures)
        if verdict is not None:
            metrics.GEOMETRY_VERDICT.labels(*labels).set(VERDICTS.index(verdict))
        return GeometryReport(
            version=version.number,
            rows=rows,
            chunks=sample.chunks,
            verdict=verdict,
            reason=None,
            measures=findings.measures,
            picture=findings.picture,
            hubs=await self._hubs(collection, sample, findings),
        )

    async def _read(self, collection: Collection, sample: VectorSample) -> tuple[list[str], neighbours.Indices]:
        """The texts of the first chunks, as far as they are what was encoded, with the numbers of their rows."""
        passages = await self._documents.passages(collection.id, sample.places[:WORDS_ROWS], None, _LENGTH)
        known = [
            (row, passage.text[:_LENGTH] if passage.text.strip() else passage.title)
            for row, passage in enumerate(passages)
            if passage is not None
        ]
        return [text for _, text in known], np.array([row for row, _ in known], np.intp)

    async def _ask(
        self, version: EmbedderVersion, texts: list[str], text_rows: neighbours.Indices
    ) -> tuple[Vectors, neighbours.Indices, str]:
        """The vectors of a few words of some texts, the rows of these texts; why there are none, where there are."""
        nothing = np.zeros((0, version.dimensions), np.float32), np.zeros(0, np.intp)
        if version.spec.external:
            return *nothing, "the client makes the vectors, so nothing can be asked here"
        pieces = await asyncio.to_thread(lexical_similarity.pieces, texts, PIECES)
        if len(pieces) < LEAST_TEXTS:
            return *nothing, ""
        parts: list[Vectors] = []
        deadline = time.monotonic() + ASKING_SECONDS
        try:
            for at in range(0, len(pieces), _BATCH):
                parts.append(await self._sampling.embedded(version, [one.text for one in pieces[at : at + _BATCH]]))
                if time.monotonic() > deadline:
                    break
        except (ModelUnavailable, SpaceRefused, Overloaded) as error:
            return *nothing, error.detail
        vectors = np.concatenate(parts)
        usable = finite(vectors)
        rows = text_rows[[one.source for one in pieces[: len(vectors)]]]
        return vectors[usable], rows[usable], ""

    async def _lengths(self, version: EmbedderVersion, texts: list[str]) -> npt.NDArray[np.float64] | None:
        """Of vectors before they were brought to length 1; None where nobody can tell."""
        if version.spec.external:
            return None
        try:
            lengths = await self._sampling.norms(version, texts[:NORMS])
        except (ModelUnavailable, SpaceRefused):
            return None  # told already, by what could not be asked
        return None if lengths is None else lengths.astype(np.float64)

    async def _different(
        self, collection: Collection, sample: VectorSample, pairs: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Those of the pairs whose texts are not the same, however they are spaced and capitalised.

        Where there are very many, some are looked at, and the others are taken to be different as well.
        """
        rows = list(dict.fromkeys(row for pair in pairs for row in pair))[:_COMPARED]
        passages = await self._documents.passages(collection.id, [sample.places[row] for row in rows], None, _LENGTH)
        read = {
            row: None if passage is None else " ".join(f"{passage.title} {passage.text}".lower().split())
            for row, passage in zip(rows, passages, strict=True)
        }
        gone = {row for row, text in read.items() if text is None}
        return [
            (one, other)
            for one, other in pairs
            if not gone & {one, other} and read.get(one, one) != read.get(other, other)
        ]

    async def _hubs(
        self, collection: Collection, sample: VectorSample, findings: GeometryMeasurements
    ) -> tuple[Hub, ...]:
        chunks = [(sample.chunks[row], count) for row, count in findings.picture.hubs]
        found = await self._documents.get(collection.id, [document_id for (document_id, _), _ in chunks])
        return tuple(
            Hub(
                document_id=document_id,
                chunk=chunk,
                title=found[document_id].title if document_id in found else "",
                occurrences=count,
            )
            for (document_id, chunk), count in chunks
        )


def _number(version: EmbedderVersion) -> VersionNumber:
    return version.number


def _numbers(sample: VectorSample) -> neighbours.Indices:
    """A number for the document of each row."""
    known: dict[DocumentId, int] = {}
    return np.array([known.setdefault(document_id, len(known)) for document_id, _ in sample.chunks], np.intp)
