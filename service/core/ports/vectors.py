from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.core.filters import Filter
from service.core.ids import DocumentId, Vector
from service.core.jobs import EncodedDocument
from service.core.search import Candidate, DensePlan
from service.core.versions import EmbedderVersion, VectorSample


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A search for the `limit` chunks of one embedder version that are nearest to `vector`, run as `plan` says.

    `within` lists the documents that may be found (they are scanned exactly); `where` filters during the scan.
    `by_document`: an exact scan gives only the best chunk of each document, `limit` of these.
    """

    version: EmbedderVersion
    vector: Vector
    limit: int
    plan: DensePlan
    within: Sequence[DocumentId] | None = None
    where: Filter | None = None
    by_document: bool = False


class VectorStore(Protocol):
    """The spaces: one physical table for each embedder version. Dense scores are cosines in [-1, 1]."""

    async def write(self, version: EmbedderVersion, encoded: Sequence[EncodedDocument]) -> frozenset[DocumentId]:
        """Replace the vectors of these documents, ending their jobs, in one transaction.

        Fenced: a job whose lease or revision is no longer the queue's is skipped. Returns what was stored.
        """

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        """Up to `limit` nearest chunks, best first."""

    async def score(
        self, version: EmbedderVersion, vector: Vector | None, ids: Sequence[DocumentId], chunks: int = 1
    ) -> tuple[Candidate, ...]:
        """The best `chunks` chunks of each of these documents with their exact cosines.

        Documents without vectors are left out. Without a query vector the first chunks, scored 0.
        """

    async def directions(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Vector]:
        """The mean direction of all chunks of each of these documents.

        Without those that have no vectors of their present content, and those whose chunks cancel each other.
        """

    async def get(
        self, version: EmbedderVersion, chunks: Sequence[tuple[DocumentId, int]], revisions: Sequence[int] | None = None
    ) -> Mapping[tuple[DocumentId, int], Vector]:
        """The existing vectors of these chunks; with `revisions` only those made from that content."""

    async def chunks(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> tuple[tuple[Candidate, Vector], ...]:
        """All chunks of these documents in their order, scored 0, with their vectors just as they are stored."""

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        """About `size` random chunks, all of them where there are fewer."""
