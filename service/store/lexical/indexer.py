"""The one writer of a collection's BM25 index: changes in, commits out.

A crash at any moment loses nothing. Tantivy's commit is atomic and `position.json` is written after it, so the position
is never ahead of the index; what lies between is applied again, and applying twice is applying once (delete by id, then
add). Everything here blocks, and calls must not overlap: the follower gives it one thread.
"""

import logging
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tantivy

from service.core.change_feed import Change, Position
from service.core.documents import StoredDocument
from service.store.lexical.analyzer import Analyzer
from service.store.lexical.index import IndexProgress, attach, is_damaged, read_progress, schema, write_progress

logger = logging.getLogger(__name__)

_HEAP_BYTES = 64 * 2**20
"""What one writer may hold in memory before it writes a segment. One thread takes in more than analysis gives it."""


class Indexer:
    """Opens the directory, or makes it anew where it is missing, torn or damaged.

    `progress` is what is committed, `position` what has been applied, `pending` the changes between the two.
    """

    def __init__(self, path: Path, analyzer: Analyzer) -> None:
        self.path = path
        self._analyzer = analyzer
        self._writer: tantivy.IndexWriter | None = None
        self._index, self.progress = self._reopened() or self._created()
        self.position = self.progress.position
        self.pending = 0
        # Entries at position zero were committed just before a crash, or by a life that was to be wiped.
        if self.position == Position() and self._index.searcher().num_docs:
            self.wipe()

    @property
    def behind(self) -> bool:
        """Would a commit change anything?"""
        return self.pending > 0 or not self.progress.complete

    def apply(self, changes: Sequence[Change]) -> None:
        """Make each document's entry what the change says. Not visible before `commit`."""
        writer = self._opened()
        for change in changes:
            writer.delete_documents_by_term("document_id", change.document_id)
            if change.document is not None:
                writer.add_document(self._entry(change.document))
        self.position = changes[-1].position
        self.pending += len(changes)

    def commit(self, *, caught_up: bool) -> None:
        """Make visible what was applied, then remember how far that was."""
        if self.pending:
            self._opened().commit()
            self.pending = 0
        progress = replace(self.progress, position=self.position, complete=self.progress.complete or caught_up)
        if progress != self.progress:
            write_progress(self.path, progress)
            self.progress = progress

    def wipe(self) -> None:
        """Start again from zero, in place. Readers are told first, so that none answers from what goes."""
        self.position, self.pending = Position(), 0
        self.progress = replace(self.progress, position=self.position, complete=False)
        write_progress(self.path, self.progress)
        writer = self._opened()
        writer.rollback()
        writer.delete_all_documents()
        writer.commit()

    def rest(self) -> None:
        """Let merges end and give the writer's threads and memory back; the next change opens it again."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.wait_merging_threads()

    def discard(self) -> None:
        """Forget what was not committed and let go of the directory."""
        self._writer = None

    def _entry(self, document: StoredDocument) -> tantivy.Document:
        text = f"{document.title}\n{document.text}"
        language = self._analyzer.language_of(text)
        entry = tantivy.Document()
        entry.add_text("document_id", document.id)
        entry.add_text("language", language)
        entry.add_unsigned("content_revision", document.content_revision)
        entry.add_text("body", " ".join(self._analyzer.chain(language).terms(text)))
        return entry

    def _opened(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._index.writer(_HEAP_BYTES, 1)
        return self._writer

    def _reopened(self) -> tuple[tantivy.Index, IndexProgress] | None:
        progress = read_progress(self.path)
        if progress is None or is_damaged(self.path):
            return None
        try:
            index = attach(tantivy.Index.open(str(self.path)))
            index.reload()
        except ValueError as error:
            logger.warning("lexical index %s is built anew: %s", self.path.name, error)
            return None
        return index, progress

    def _created(self) -> tuple[tantivy.Index, IndexProgress]:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        index = attach(tantivy.Index(schema(), path=str(self.path), reuse=False))
        progress = IndexProgress(generation=uuid.uuid4().hex, position=Position())
        write_progress(self.path, progress)
        return index, progress
