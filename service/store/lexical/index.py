"""One collection's BM25 index as readers see it: a directory with a Tantivy index and its place in the change feed.

    {collection id}-{analyzer version}/
        meta.json, *.idx, *.term ...   Tantivy's own files
        position.json                  the position in the change feed; written after each commit
        damaged                        left by a reader that could not read; the follower builds anew

Everything here blocks (call it in a thread). The one writer of a directory is `indexer.py`.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import tantivy

from service.core.collections import SynonymRule
from service.core.documents import StoredDocument
from service.core.errors import LexiconUnavailable
from service.core.ids import DocumentId
from service.core.ports.lexicon import TermCounts
from service.core.query_syntax import Highlights, ParsedQuery
from service.core.search import Candidate, Suggestion
from service.store.lexical.analyzer import Analyzer
from service.store.lexical.exact_bm25 import SampleBM25
from service.store.lexical.highlights import highlighted
from service.store.lexical.identifiers import query_identifiers
from service.store.lexical.passage_scorer import PassageScorer
from service.store.lexical.progress import POSITION_FILE, IndexProgress, is_damaged, mark_damaged, read_progress
from service.store.lexical.query import LexicalQuery, Must
from service.store.lexical.suggestions import Suggester, last_word
from service.store.lexical.synonyms import Synonyms
from service.store.lexical.verification import IndexFiles, panics_raised
from service.store.lexical.word_parts import words_apart

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TIES = (1, 100, 1000)
"""Additional hits to read in search of documents that tie with the last, so that ids and not disk order decide."""

_SCORE_DIGITS = 4
"""Scores are float32 sums whose order of addition is not fixed: below this they are noise and would break ties."""

_RECENT_QUERIES = 32
"""Of an index that are kept, read and compiled."""

_CHECK_SECONDS = 0.1
"""Between two looks at the sizes of the files before a search; one takes 50 microseconds a segment."""


def schema() -> tantivy.Schema:
    """`body`: the sequences of terms of title and text as our analyzer made them, with positions for phrases.

    `identifier`: identifiers whole, and substrings of very long runs. `word`, `title`: see `suggestions`.
    """
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("document_id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("language", tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("content_revision", fast=True)
    builder.add_text_field("body", tokenizer_name="terms", index_option="position")
    builder.add_text_field("identifier", tokenizer_name="terms", index_option="basic")
    builder.add_text_field("word", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("title", tokenizer_name="raw", index_option="basic")
    return builder.build()


def configure(index: tantivy.Index) -> tantivy.Index:
    """Set what Tantivy does not keep on disk: terms are separated by spaces, and readers reload on request."""
    index.register_tokenizer("terms", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    index.config_reader("manual")
    return index


def indexed_text(document: StoredDocument) -> str:
    """What the lexical leg searches of a document."""
    return f"{document.title}\n{document.text}"


def analysed(analyzer: Analyzer, document: StoredDocument) -> tuple[str, list[list[str]]]:
    """The language of a document, and the sequences of terms of its title and text."""
    text = indexed_text(document)
    language = analyzer.language_of(text)
    return language, analyzer.chain(language).sequences(text)


def term_counts(analyzer: Analyzer, document: StoredDocument) -> TermCounts:
    """The terms of a document, as its entry in the index would have them."""
    terms = list(chain.from_iterable(analysed(analyzer, document)[1]))
    revision = document.content_revision
    return TermCounts(document_id=document.id, content_revision=revision, counts=Counter(terms), length=len(terms))


class LexicalIndex:
    """A reader. Sees what was committed when it last refreshed. LexiconUnavailable where the directory is unusable."""

    def __init__(self, path: Path, analyzer: Analyzer) -> None:
        self.path = path
        self._analyzer = analyzer
        self._schema = schema()
        self._synonyms = Synonyms()
        self._files = IndexFiles(path)
        self._checked_at = 0.0
        self._unreadable = ""
        self.damaged = False
        """Its files were found to be damaged; while none is too short, it answers until the new index is complete."""
        self._replaced = False
        self.foreign = False
        """The database does not know it: it was restored, or belongs to another installation with the same id."""
        self._generation = ""
        self.refresh()

    @property
    def progress(self) -> IndexProgress:
        """What searches see; they may see a little more."""
        return self._view[1]

    def use_synonyms(self, rules: Sequence[SynonymRule]) -> None:
        """Of all queries from now on: those that the settings of the collection have."""
        if rules != self._synonyms.rules:
            self._synonyms = Synonyms(rules)

    def stale(self) -> bool:
        """Whether something was committed since the last refresh. One stat, no reading."""
        return _stamp(self.path) != self._seen

    def refresh(self) -> None:
        """Show what is committed now."""
        while True:
            self._seen = _stamp(self.path)
            progress = read_progress(self.path)
            if progress is None:
                raise LexiconUnavailable("The lexical index is not built yet.")
            another = progress.generation != self._generation
            if another and self.damaged and not self._unreadable and not progress.complete:
                self._replaced = True  # its files are deleted, and stay for as long as they are mapped
                return
            if another and is_damaged(self.path):
                raise LexiconUnavailable("The lexical index is damaged and will be built anew.")
            with self._damage_detected(progress.generation):
                if another:
                    self._files = IndexFiles(self.path, progress.opstamp)
                self._check_files()
                if another:
                    self._index = configure(tantivy.Index.open(str(self.path)))
                    self.damaged = self._replaced = self.foreign = False
                self._index.reload()
                # One assignment, so that no search pairs the searcher of one state with the progress of another. The
                # searcher may be ahead of the position; were it behind (a wipe), the position would have changed too.
                # Each search asks its query several things: it is read once.
                searcher = self._index.searcher()
                read = lru_cache(_RECENT_QUERIES)(partial(LexicalQuery, searcher, self._schema, self._analyzer))
                self._view = (searcher, progress, read)
            self._generation = progress.generation
            if not self.stale():
                return

    def verify(self) -> None:
        """Read all files again. Where one is damaged, the follower builds the index anew."""
        try:
            if not self.damaged:
                self._files.check(contents=True)
        except ValueError as error:
            with suppress(ValueError):
                self._check_files()  # whether it may still answer
            self._report_damage(error, self._generation)

    def search(self, words: ParsedQuery, limit: int, within: Sequence[DocumentId] | None) -> list[Candidate]:
        """Best first; equal scores in the order of their ids."""
        with self._query(words) as query:
            # Tantivy allocates memory for as many hits as it is asked for.
            limit = min(limit, query.searcher.num_docs)
            if limit < 1:
                return []
            search = query.query
            if within is not None:
                search = tantivy.Query.boolean_query([self._only(within), (Must, search)])
            matches = _matches(query.searcher, search, limit)
        return sorted(matches, key=lambda match: (-match.score, match.document_id))[:limit]

    def matching_constraints(self, words: ParsedQuery, ids: Sequence[DocumentId]) -> frozenset[DocumentId]:
        """Those of `ids` that contain what is required, and nothing that is excluded."""
        with self._query(words) as query:
            searcher = query.searcher
            if not ids or not searcher.num_docs:
                return frozenset()
            search = tantivy.Query.boolean_query([self._only(ids), *query.constraints()])
            hits = searcher.search(search, min(len(ids), searcher.num_docs), count=False).hits
            return frozenset(_document_id(searcher, address) for _, address in hits)

    def evaluate(self, words: ParsedQuery, method: Callable[[LexicalQuery], T]) -> T:
        """The result of a method of the query."""
        with self._query(words) as query:
            return method(query)

    def exact_scores(self, words: ParsedQuery, documents: Sequence[TermCounts]) -> tuple[float, ...]:
        """The BM25 score of each document with its exact length and the statistics of the index."""
        return SampleBM25(documents, *self.evaluate(words, LexicalQuery.statistics)).scores()

    def score_passages(self, words: ParsedQuery, passages: Sequence[str]) -> tuple[float, ...]:
        """Aligned with the passages."""
        with self._query(words) as query:
            return PassageScorer(query, words).scores(passages)

    def highlight(self, words: ParsedQuery, passages: Sequence[str]) -> list[Highlights]:
        """Aligned with the passages."""
        with self._query(words) as query:
            weights = query.highlighting
            verbatim = [one.text for one in query_identifiers(words.text)]
            apart = words_apart(words.text)
            return [highlighted(passage, weights, verbatim, apart) for passage in passages]

    def suggest(self, text: str, k: int, within: Sequence[DocumentId] | None) -> list[Suggestion]:
        """Completions of a text that is being typed."""
        with self._query(ParsedQuery(text=text[: last_word(text)])) as others:
            return Suggester(others, self._schema, within).suggest(text, k)

    @contextmanager
    def _query(self, words: ParsedQuery) -> Iterator[LexicalQuery]:
        _, progress, read = self._view
        if not progress.complete:
            raise LexiconUnavailable("The lexical index is being built.")
        if self.foreign:
            raise LexiconUnavailable("The lexical index belongs to another state of the database.")
        if self._unreadable:
            raise LexiconUnavailable(self._unreadable)
        with self._damage_detected(progress.generation):
            if not self._replaced and time.monotonic() - self._checked_at > _CHECK_SECONDS:
                self._check_files()
            yield read(words, self._synonyms)

    def _only(self, ids: Sequence[DocumentId]) -> tuple[tantivy.Occur, tantivy.Query]:
        """Scored as the constant 0, so that a filter never changes a BM25 score."""
        only = tantivy.Query.term_set_query(self._schema, "document_id", list(ids))
        return Must, tantivy.Query.const_score_query(only, 0.0)

    def _check_files(self) -> None:
        """ValueError; nothing is read from then on, for that might end the process."""
        try:
            self._files.check()
        except ValueError as error:
            self._unreadable = f"The lexical index cannot be read and will be built anew: {error}"
            raise
        self._unreadable, self._checked_at = "", time.monotonic()

    @contextmanager
    def _damage_detected(self, generation: str) -> Iterator[None]:
        """Tantivy reports damaged files by ValueError or by a panic."""
        try:
            with panics_raised():
                yield
        except ValueError as error:
            self._report_damage(error, generation)
            raise LexiconUnavailable(f"The lexical index cannot be read and will be built anew: {error}") from error

    def _report_damage(self, error: ValueError, generation: str) -> None:
        """Leave a mark for the follower, unless it has replaced the index meanwhile."""
        logger.error("damage of the lexical index %s: %s", self.path.name, error)
        self.damaged = True
        progress = read_progress(self.path)
        if progress is None or progress.generation == generation:
            mark_damaged(self.path)


def _matches(searcher: tantivy.Searcher, query: tantivy.Query, limit: int) -> list[Candidate]:
    """The best `limit`, and those that tie with the last of them: Tantivy chooses among equals arbitrarily."""
    for more in _TIES:
        hits = searcher.search(query, limit + more, count=False).hits
        tie = round(hits[limit - 1][0], _SCORE_DIGITS) if len(hits) >= limit else 0.0
        if len(hits) < limit + more or round(hits[-1][0], _SCORE_DIGITS) < tie:
            break
    found = [(round(score, _SCORE_DIGITS), address) for score, address in hits]
    found = [(score, address) for score, address in found if score >= tie and score > 0]
    revisions = searcher.fast_field_values("content_revision", [address for _, address in found])
    return [
        Candidate(document_id=_document_id(searcher, address), content_revision=int(revision or 0), score=score)
        for (score, address), revision in zip(found, revisions, strict=True)
    ]


def _document_id(searcher: tantivy.Searcher, address: tantivy.DocAddress) -> DocumentId:
    return DocumentId(searcher.doc(address)["document_id"][0])


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with each write of the position file."""
    try:
        status = (path / POSITION_FILE).stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
