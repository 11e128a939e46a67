"""The domain objects of a search: the request, the result, and the explanation of each hit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from service.core import boosts
from service.core.boosts import Boost
from service.core.collections import CollectionSettings, FusionSettings, IndexKind, RerankSettings
from service.core.errors import Invalid
from service.core.examples import Like
from service.core.explanation import Explanation
from service.core.facets import Facet, FacetRequest
from service.core.filters import Filter, typed
from service.core.ids import DocumentId, VersionNumber
from service.core.query_syntax import ParsedQuery, Syntax, TypoTolerance, parse_query
from service.core.result_options import MinScore, SortKey, SurroundingText, TextAround
from service.core.text import break_long_words
from service.core.timings import Timings


class Candidate(NamedTuple):  # a search makes hundreds of them
    """A document found by one leg: its score there, and its best chunk where the leg knows chunks."""

    document_id: DocumentId
    content_revision: int
    score: float
    chunk: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DensePlan:
    """How the dense leg ran. `underfilled`: the answer is shorter than requested although more hits may exist.

    `max_scan_tuples`: rows after which an iterative scan gives up. `reason`: a code for why this plan was chosen.
    `hnsw` stands for every index; `index` is its kind.
    """

    kind: Literal["exact", "hnsw", "hnsw_iterative", "none"] = "none"
    index: IndexKind = "hnsw"
    ef_search: int | None = None
    selectivity: float | None = None
    underfilled: bool = False
    max_scan_tuples: int | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        return self.kind.replace("hnsw", self.index)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterMatch:
    """The documents that pass a filter; `ids` is None where they are too many to list (`count`: an estimate)."""

    ids: tuple[DocumentId, ...] | None
    count: int
    total: int

    @property
    def selectivity(self) -> float:
        return min(1.0, self.count / self.total) if self.total else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """The input with its last word completed, or the title of a document. `documents`: how many have it, with the other
    words of the input."""

    text: str
    kind: Literal["word", "title"]
    documents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A chunk of a document, which may have an `image`. `partial`: it has more text; it is `whole`, where asked for."""

    title: str
    text: str
    start: int
    end: int
    metadata: Mapping[str, Any]
    revision: int
    partial: bool = False
    whole: str | None = None
    image: bool = False


DIVERSITY_POOL_FACTOR, MIN_DIVERSITY_POOL, MAX_DIVERSITY_POOL = 3, 50, 1_000
"""MMR chooses from so many times `k` hits, within these bounds: further down, relevance is too low."""

Mode = Literal["hybrid", "dense", "lexical"]
Include = Literal["text", "metadata", "highlights", "vector"]
Group = Literal["document", "chunk"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Degradation:
    """A stage that could not do its part. `code`: from a bounded set. `reason`: in words."""

    stage: str
    code: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit(Passage):
    id: DocumentId
    chunk: int
    score: float
    relevance: float | None = None
    """The probability that it answers the query; None where no calibrated reranker read it with all of the query."""
    content_revision: int
    highlights: tuple[str, ...] = ()
    highlight_offsets: tuple[tuple[int, int], ...] = ()
    """[start, end) of every match, in code points of the document's text."""
    title_highlight: str | None = None
    vector: tuple[float, ...] | None = None
    context: SurroundingText | None = None
    explanation: Explanation

    @property
    def cosine(self) -> float | None:
        return self.explanation.raw_score("dense")

    @property
    def bm25(self) -> float | None:
        return self.explanation.raw_score("lexical")


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankRequest:
    """The request that a cross-encoder reads the best hits. None: as the collection's settings say."""

    depth: int | None = None
    weight: float | None = None

    def resolve(self, base: RerankSettings) -> RerankSettings:
        """`base` with the values that the client set."""
        depth = base.depth if self.depth is None else self.depth
        weight = base.weight if self.weight is None else self.weight
        return RerankSettings(depth=depth, weight=weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One of the queries of a search: a text, a vector, or both. `weight`: above 0."""

    text: str = ""
    vector: tuple[float, ...] | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """A search for `text`, for a `vector` of a space that the client names, or both; or for several `queries`; or, in
    the mode dense, for what is `like` examples or an `image` (`core/images.py`).

    `syntax`: whether texts have operators (`query_syntax`); `as_words`: those that turned out to be none, see
    `parse_query`. `typos`: whether unknown words stand for similar ones.
    `fusion`, `candidates` None: as the collection's settings say. `diversity` in [0, 1]: of MMR. `min_revision`: of the
    change feed, whose changes are to be found. `explain`: the answer shows how each hit came about. `offset`: hits that
    are left out before the first `k`. `sort`: in place of the order by score; with nothing to search for, of all
    documents that pass the filter. `fields`: of the metadata; None: all.
    """

    text: str = ""
    vector: tuple[float, ...] | None = None
    queries: tuple[Query, ...] = ()
    like: Like | None = None
    image: str = ""
    syntax: Syntax = "wishes"
    as_words: frozenset[str] = frozenset()
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
    min_revision: int = 0
    explain: bool = False
    include: frozenset[Include] = frozenset({"text", "metadata", "highlights"})
    offset: int = 0
    min_score: MinScore | None = None
    sort: tuple[SortKey, ...] = ()
    facets: tuple[FacetRequest, ...] = ()
    boosts: tuple[Boost, ...] = ()
    fields: tuple[str, ...] | None = None
    around: TextAround | None = None

    @property
    def effective_queries(self) -> tuple[Query, ...]:
        """The queries, of which there mostly is one."""
        return self.queries or (Query(text=self.text, vector=self.vector),)

    @property
    def browses(self) -> bool:
        """Whether there is nothing to search for: the documents that pass are listed in the order of `sort`."""
        return bool(self.sort) and self.like is None and not (self.text or self.vector or self.queries or self.image)

    def for_collection(self, settings: CollectionSettings) -> "SearchRequest":
        """The same search with the filter read by the types of declared fields. Invalid names a value of another, and
        fields that have to be declared."""
        for at, key in enumerate(self.sort):
            if key.field not in settings.field_types:
                raise Invalid.at(f"sort.{at}", f"{key.field} is not declared: name it in `indexed` of the collection")
        if self.where is None and not self.boosts:
            return self
        types = settings.field_types
        boosted = tuple(boosts.for_collection(one, types, f"boost.{at}") for at, one in enumerate(self.boosts))
        return replace(self, where=None if self.where is None else typed(self.where, types), boosts=boosted)

    def for_query(self, query: Query) -> "SearchRequest":
        """The same search with only this query."""
        return replace(self, text=query.text, vector=query.vector, queries=()) if self.queries else self

    def main_query(self, explanation: Explanation) -> int:
        """The number of the query with text that contributes most to a hit: what its passage shall answer."""
        gains = [query.gain for query in explanation.queries] or [0.0]
        with_text = [at for at, query in enumerate(self.effective_queries) if query.text]
        return max(with_text, key=lambda at: gains[at])

    def rerank_query(self, explanation: Explanation) -> Query:
        """What a cross-encoder reads together with the passage of a hit."""
        return self.effective_queries[self.main_query(explanation)]

    @property
    def pool_size(self) -> int:
        """How many of the first hits the answer is chosen from: with `offset` or `diversity` more than it returns."""
        pool = min(MAX_DIVERSITY_POOL, max(DIVERSITY_POOL_FACTOR * self.k, MIN_DIVERSITY_POOL))
        return pool if self.diversity else self.offset + self.k

    @property
    def parsed_query(self) -> ParsedQuery:
        """The texts as the lexical leg reads them; of several queries the union of terms and constraints."""
        texts = [query.text for query in self.effective_queries if query.text]
        each = [parse_query(text, self.syntax, self.typos, self.as_words) for text in texts]
        return each[0] if len(each) == 1 else ParsedQuery.union(each, self.typos)

    def model_text(self, query: Query) -> str:
        """A query as models read it: without operators and excluded terms, long runs of letters in pieces."""
        return break_long_words(parse_query(query.text, self.syntax, as_words=self.as_words).text)


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankSummary:
    """`excerpts`: passages, of those read, of which only an excerpt was. `skipped`: that were not read because they
    could not change the first k. `truncated`: read, but cut.

    `weight`: of the reranker in the scores of this search.
    """

    read: int
    skipped: int
    weight: float
    truncated: int = 0
    excerpts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Confidence:
    """`in_domain`: the probability that the query is one for the collection, at even prior odds; None: unknown.

    `interval`: of 95 %; wide near the border, the more so where little was learnt from real queries.
    `withheld`: no hits are returned, because the request demands more. `reason`: for either.
    """

    in_domain: float | None
    interval: Interval | None = None
    withheld: bool = False
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    hits: tuple[Hit, ...]
    mode: Mode | Literal["browse"]
    embedder_version: VersionNumber
    dense: DensePlan
    rerank_summary: RerankSummary | None
    parsed_query: ParsedQuery
    unmatched_terms: tuple[str, ...]
    """Quoted phrases that no document contains: they were no constraint."""
    degraded: tuple[Degradation, ...]
    confidence: Confidence
    facets: tuple[Facet, ...] = ()
    timings: Timings
    replica_lag_seconds: float | None = None
    """How far the replica that was read is behind, at most; None: the primary was read."""

    @property
    def complete(self) -> bool:
        """Whether every stage did its part. A query that was cut to the limit of a model counts as answered, and so
        does one whose long documents were not read for their best passage, which ranks no document."""
        harmless = {("passages", "incomplete")}
        return all(one.code == "query_truncated" or (one.stage, one.code) in harmless for one in self.degraded)
