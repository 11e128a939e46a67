"""The one writer of a collection's BM25 index: applies changes and commits them.

A crash at any moment loses nothing. Tantivy's commit is atomic and `position.json` is written after it, so the position
is never ahead of the index; what lies between is applied again, which changes nothing (delete by id, then add).
Everything here blocks, and calls must not overlap: the follower gives it one thread.
"""

import logging
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tantivy

from service.core.change_feed import NOTHING_SEEN, Change, Position, Snapshot
from service.core.documents import StoredDocument
from service.core.ids import DocumentId
from service.core.metrics import LEXICAL_REBUILDS
from service.store.lexical.analyzer import Analyzer
from service.store.lexical.identifiers import index_terms
from service.store.lexical.index import analysed, configure, indexed_text, schema
from service.store.lexical.progress import IndexProgress, is_damaged, read_progress, write_progress
from service.store.lexical.suggestions import title_entry, word_entries
from service.store.lexical.verification import IndexFiles, panics_raised
from service.store.lexical.word_parts import run_grams

logger = logging.getLogger(__name__)

DRAFTS = (".new", ".old")
"""Endings of the directories beside an index while it is replaced."""

_HEAP_BYTES = 64 * 2**20
"""Memory of a writer before it writes a segment. One thread takes in more than the analysis gives it."""


class Indexer:
    """Opens the directory, or creates it anew where it is missing, incomplete or damaged.

    `progress` is what is committed, `position` what has been applied, `pending` the number of changes between them.
    """

    def __init__(self, path: Path, analyzer: Analyzer) -> None:
        self.path = path
        self._analyzer = analyzer
        self._writer: tantivy.IndexWriter | None = None
        self._index, self.progress = self._open_existing() or self._create()
        self.position, self.seen = self.progress.position, self.progress.seen
        self.pending = 0
        self._ahead: dict[DocumentId, int] = {}
        self._ahead_at, self._ahead_from = Position(), NOTHING_SEEN
        # Entries at position zero were committed just before a crash, or by a generation that was to be wiped.
        if self.position == Position() and self._index.searcher().num_docs:
            self.wipe()

    @property
    def needs_commit(self) -> bool:
        return self.pending > 0 or not self.progress.complete or self.seen != self.progress.seen

    def apply(self, changes: Sequence[Change]) -> None:
        """Replace each document's entry by what the change says. Not visible before `commit`."""
        self._replace([one for one in changes if self._ahead.pop(one.document_id, 0) != one.position.xid])
        self.position = changes[-1].position

    @property
    def ahead_at(self) -> Position:
        """Where `apply_ahead` continues: after its last page if that was full, else after all that was applied."""
        return max(self.position, self._ahead_at)

    def apply_ahead(self, changes: Sequence[Change], snapshot: Snapshot, *, exhausted: bool) -> None:
        """Apply changes that lie after transactions which still run, and leave the position where it is.

        `snapshot`: the transactions that had ended when they were read. `exhausted`: there are no more of them.
        """
        self._replace([one for one in changes if self._ahead.get(one.document_id) != one.position.xid])
        self._ahead.update((one.document_id, one.position.xid) for one in changes)
        first = self._ahead_at == Position()
        if first:
            self._ahead_from = snapshot  # the earliest of several pages: whatever committed since comes again
        if not exhausted:
            self._ahead_at = changes[-1].position
        elif changes or not first:
            self.seen, self._ahead_at = self._ahead_from, Position()

    def _replace(self, changes: Sequence[Change]) -> None:
        if not changes:
            return  # no writer is opened, which takes threads and memory, while another transaction stays open
        writer = self._open_writer()
        for change in changes:
            writer.delete_documents_by_term("document_id", change.document_id)
            if change.document is not None:
                writer.add_document(self._entry(change.document))
        self.pending += len(changes)

    def commit(self, *, caught_up: bool, token: str = "") -> None:
        """Make visible what was applied, then store its position. `token`: made after all of it was read."""
        opstamp = self.progress.opstamp
        if self.pending:
            opstamp = self._open_writer().commit()
            self.pending = 0
        complete = self.progress.complete or caught_up
        progress = replace(
            self.progress, position=self.position, complete=complete, seen=self.seen, opstamp=opstamp, token=token
        )
        if progress != self.progress:
            write_progress(self.path, progress)
            self.progress = progress

    def wipe(self) -> None:
        """Start again from zero, in place. The position is written first, so that no reader uses the old entries."""
        self.position, self.seen, self.pending = Position(), NOTHING_SEEN, 0
        self._ahead, self._ahead_at = {}, Position()
        self.progress = IndexProgress(generation=uuid.uuid4().hex, position=self.position)
        write_progress(self.path, self.progress)
        writer = self._open_writer()
        writer.rollback()
        writer.delete_all_documents()
        writer.commit()

    def release_writer(self) -> None:
        """Wait for merges and free the writer's threads and memory; the next change opens it again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.wait_merging_threads()

    def in_place(self) -> bool:
        """Whether the directory is as this left it; somebody may have removed or overwritten it."""
        return read_progress(self.path) == self.progress and not is_damaged(self.path)

    def discard(self) -> None:
        """Drop what was not committed and unlock the directory."""
        self._writer = None

    def _entry(self, document: StoredDocument) -> tantivy.Document:
        language, sequences = analysed(self._analyzer, document)
        text = indexed_text(document)
        entry = tantivy.Document()
        entry.add_text("document_id", document.id)
        entry.add_text("language", language)
        entry.add_unsigned("content_revision", document.content_revision)
        for terms in sequences:
            entry.add_text("body", " ".join(terms))
        entry.add_text("identifier", " ".join((*index_terms(text), *(gram for _, gram in run_grams(text)))))
        for word in word_entries(text):
            entry.add_text("word", word)
        if title := title_entry(document.title):
            entry.add_text("title", title)
        return entry

    def _open_writer(self) -> tantivy.IndexWriter:
        self._files.check()
        if self._writer is None:
            self._writer = self._index.writer(_HEAP_BYTES, 1)
        return self._writer

    def _open_existing(self) -> tuple[tantivy.Index, IndexProgress] | None:
        progress = read_progress(self.path)
        if progress is None or is_damaged(self.path):
            return None
        try:
            self._files = IndexFiles(self.path, progress.opstamp)
            self._files.check()
            with panics_raised():
                index = configure(tantivy.Index.open(str(self.path)))
                index.reload()
        except ValueError as error:
            logger.error("lexical index %s is built anew: %s", self.path.name, error)
            return None
        return index, progress

    def _create(self) -> tuple[tantivy.Index, IndexProgress]:
        """Made beside what is there, which it then replaces: no reader ever meets half of a directory."""
        LEXICAL_REBUILDS.labels("damaged" if self.path.exists() else "new").inc()
        draft, former = (self.path.with_name(self.path.name + ending) for ending in DRAFTS)
        for leftover in (draft, former):
            shutil.rmtree(leftover, ignore_errors=True)
        draft.mkdir(parents=True)
        tantivy.Index(schema(), path=str(draft), reuse=False)
        progress = IndexProgress(generation=uuid.uuid4().hex, position=Position())
        write_progress(draft, progress)
        if self.path.exists():
            self.path.rename(former)
        draft.rename(self.path)
        shutil.rmtree(former, ignore_errors=True)
        self._files = IndexFiles(self.path)
        return configure(tantivy.Index.open(str(self.path))), progress
