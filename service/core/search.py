"""The nouns of a search: what is asked, what is answered, and how each hit came about."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from service.core.collections import FusionSettings, RerankSettings
from service.core.filters import Filter
from service.core.ids import DocumentId, VersionNumber
from service.core.query_syntax import ParsedQuery, Syntax, TypoTolerance, parse_query
from service.core.timings import Timings


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What one leg says of one document: its score there, and the best chunk where the leg knows chunks."""

    document_id: DocumentId
    content_revision: int
    score: float
    chunk: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DensePlan:
    """How the dense leg ran. `underfilled`: fewer candidates came back than asked for although more may exist.

    `max_scan_tuples`: rows after which an iterative scan gives up. `reason`: a code that says why it is this plan.
    """

    kind: Literal["exact", "hnsw", "hnsw_iterative", "none"] = "none"
    ef_search: int | None = None
    selectivity: float | None = None
    underfilled: bool = False
    max_scan_tuples: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterMatch:
    """The documents that pass a filter; `ids` is None where they are too many to name (`count`: an estimate)."""

    ids: tuple[DocumentId, ...] | None
    count: int
    total: int

    @property
    def selectivity(self) -> float:
        return min(1.0, self.count / self.total) if self.total else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A chunk read back from its document."""

    title: str
    text: str
    start: int
    end: int
    metadata: Mapping[str, Any]
    revision: int


DIVERSE_FACTOR, DIVERSE_LEAST, DIVERSE_MOST = 3, 50, 1_000
"""Hits that differ are chosen from so many times as many, within these bounds: further down, relevance is too low."""

Mode = Literal["hybrid", "dense", "lexical"]
Include = Literal["text", "metadata", "highlights", "vector"]
Group = Literal["document", "chunk"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Degradation:
    """A stage that could not do its part, and why: a `code` from a bounded set, and the reason in words."""

    stage: str
    code: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LegExplanation:
    """Where a hit stood in one leg (`rank` from 1; None where the leg itself did not find it).

    `share`: what of the fused score comes from this leg; over all legs and queries they add up to it.
    """

    rank: int | None
    score: float
    normalised: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankExplanation:
    """`rank` among the passages that were read. `share`: what of the hit's score comes from the reranker."""

    rank: int
    score: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryExplanation:
    """Where a hit stood for one of several queries, and what it gained by it: its part of the fused score."""

    dense: LegExplanation | None = None
    lexical: LegExplanation | None = None
    gain: float = 0.0
    certainty: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DiversityExplanation:
    """Why a hit stands where it does: its `rank` by score alone, its highest cosine to a hit above it, and its `mmr`.

    `similarity` is None for the first hit, and where the hit's vector is not known.
    """

    rank: int
    similarity: float | None
    mmr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """How the score of one hit came about.

    `certainty`: of the dense leg, for this query. `queries` has all of them, in order, where there were several:
    `dense`, `lexical` and `certainty` are then of the one that counts most for this hit.
    """

    dense: LegExplanation | None
    lexical: LegExplanation | None
    fusion: float
    certainty: float = 1.0
    queries: tuple[QueryExplanation, ...] = ()
    rerank: RerankExplanation | None = None
    diversity: DiversityExplanation | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    id: DocumentId
    chunk: int
    score: float
    title: str
    text: str
    start: int
    end: int
    metadata: Mapping[str, Any]
    revision: int
    content_revision: int
    highlights: tuple[str, ...] = ()
    highlight_offsets: tuple[tuple[int, int], ...] = ()
    """[start, end) of every match, in code points of the document's text."""
    vector: tuple[float, ...] | None = None
    explanation: Explanation


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankRequest:
    """That a cross-encoder reads the best hits. What is None here is as the collection's settings say."""

    depth: int | None = None
    weight: float | None = None

    def resolve(self, base: RerankSettings) -> RerankSettings:
        """`base` with what the client named changed."""
        return RerankSettings(
            depth=base.depth if self.depth is None else self.depth,
            weight=base.weight if self.weight is None else self.weight,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One of the questions of a search: words, a vector in their place, or both. `weight`: above 0."""

    text: str = ""
    vector: tuple[float, ...] | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What hits are to be like, or unlike: a document, a text or a vector; one of the three."""

    id: DocumentId | None = None
    text: str | None = None
    vector: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Like:
    positive: tuple[Example, ...]
    negative: tuple[Example, ...] = ()

    @property
    def by_field(self) -> tuple[tuple[str, Example], ...]:
        """All of them, positive before negative, with their places in the request."""
        sides = (("positive", self.positive), ("negative", self.negative))
        return tuple((f"like.{side}.{at}", one) for side, examples in sides for at, one in enumerate(examples))

    @property
    def ids(self) -> frozenset[DocumentId]:
        return frozenset(one.id for _, one in self.by_field if one.id is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """One search: for `text`, for a `vector` in a space that the client knows, or both; or for several `queries`; or,
    in the mode dense, for what is `like` examples.

    `syntax`: are wishes read in texts (`wishes.py`)? `typos`: may words that nobody says stand for similar ones?
    `fusion` and `candidates` None: as the collection's settings say. `diversity` in [0, 1]: how much hits should differ
    (MMR).
    """

    text: str = ""
    vector: tuple[float, ...] | None = None
    queries: tuple[Query, ...] = ()
    like: Like | None = None
    syntax: Syntax = "wishes"
    typos: TypoTolerance | None = None
    k: int = 10
    mode: Mode = "hybrid"
    where: Filter | None = None
    fusion: FusionSettings | None = None
    candidates: int | None = None
    rerank: RerankRequest | None = None
    exact: bool = False
    ef_search: int | None = None
    embedder_version: VersionNumber | None = None
    group_by: Group = "document"
    diversity: float = 0.0
    min_confidence: float | None = None
    budget_ms: float | None = None
    include: frozenset[Include] = frozenset({"text", "metadata", "highlights"})

    @property
    def effective_queries(self) -> tuple[Query, ...]:
        """The questions, of which there mostly is one."""
        return self.queries or (Query(text=self.text, vector=self.vector),)

    def for_query(self, query: Query) -> "SearchRequest":
        """The same search with only this question."""
        return replace(self, text=query.text, vector=query.vector, queries=()) if self.queries else self

    def rerank_query(self, explanation: Explanation) -> Query:
        """The question that a cross-encoder reads with a hit: of several in words, the one that counts most for it."""
        gains = [query.gain for query in explanation.queries] or [0.0]
        worded = [(gain, query) for gain, query in zip(gains, self.effective_queries, strict=True) if query.text]
        return max(worded, key=lambda one: one[0])[1]

    @property
    def pool_size(self) -> int:
        """Hits that the answer is chosen from: where they are to differ, more than it has."""
        return min(DIVERSE_MOST, max(DIVERSE_FACTOR * self.k, DIVERSE_LEAST)) if self.diversity else self.k

    @property
    def parsed_query(self) -> ParsedQuery:
        """What is asked of words; of several questions all that any of them asks and wishes."""
        each = [parse_query(query.text, self.syntax, self.typos) for query in self.effective_queries if query.text]
        if len(each) == 1:
            return each[0]
        return ParsedQuery(
            text=" ".join(one.text for one in each),
            quoted=_distinct(one.quoted for one in each),
            required=_distinct(one.required for one in each),
            excluded=_distinct(one.excluded for one in each),
            typos=self.typos,
        )

    def model_text(self, query: Query) -> str:
        """A question as models read it: without operators, and without what it excludes."""
        return parse_query(query.text, self.syntax).text


def _distinct(wishes: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(wish for some in wishes for wish in some))


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankSummary:
    """How far the cross-encoder read. `skipped`: passages that could not change the first k any more, unread.

    `truncated`: of those read, how many are longer than it takes with the query, and were cut. `weight`: what it got of
    the weight that it may have, by how far it agrees with the first stage (`blending.believed`).
    """

    read: int
    skipped: int
    weight: float
    truncated: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Confidence:
    """`in_domain`: the probability that the question is one for the collection, were even odds expected beforehand.

    None where it cannot be told. `withheld`: the hits were, because the request wants more. `reason`: of either.
    """

    in_domain: float | None
    withheld: bool = False
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    hits: tuple[Hit, ...]
    mode: Mode
    embedder_version: VersionNumber
    dense: DensePlan
    rerank_summary: RerankSummary | None
    parsed_query: ParsedQuery
    unmatched_terms: tuple[str, ...]
    """Phrases that the query quotes and no document says: they bound nothing."""
    degraded: tuple[Degradation, ...]
    confidence: Confidence
    timings: Timings

    @property
    def reranked(self) -> bool:
        return self.rerank_summary is not None

    @property
    def complete(self) -> bool:
        """Did every stage do its part? A query that was cut to what the embedder reads counts as answered."""
        return all(degradation.code == "truncated" for degradation in self.degraded)
