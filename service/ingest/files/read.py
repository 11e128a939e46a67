"""The documents of a source: its files are found, unpacked and read, the latter two in a child process."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Self

from service.core.child_process import ChildDied, ChildProcess
from service.ingest.files.found import FoundFile, Unreadable, found_files, is_archive, unpack
from service.ingest.files.prose import READERS, read_text
from service.ingest.files.tables import ROWS, rows_as_documents

MEMORY_BYTES = 2 * 2**30
BASE_SECONDS, BYTES_PER_SECOND = 60.0, 2**20
"""A file may be read for so long, and for longer as it is larger."""
MAX_DOCUMENTS_BYTES = 4 * 2**30
"""Of the documents of one file."""
SOURCE, FILE = "ingested.source", "ingested.file"
"""Metadata by which the documents of a source and of one of its files are found."""


@dataclass(slots=True)
class FileReader:
    """Reads files one after another. A context manager, because of its child process and its temporary folder.

    `problems`: files that could not be read, with the reason; `skipped`: those that have no text. `read`: the names of
    the others, with the numbers of their documents.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    _child: ChildProcess = field(default_factory=lambda: ChildProcess(MEMORY_BYTES))
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._open.enter_context(self._child)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def documents(self, source: str, name: str) -> Iterator[bytes]:
        """The documents of a source as lines of JSON. `name`: how they tell where they came from."""
        with TemporaryDirectory() as folder:
            for found in found_files(source, Path(folder)):
                yield from self.documents_of(found, name)

    def documents_of(self, found: FoundFile, source: str) -> Iterator[bytes]:
        """Of one file, which may be an archive."""
        with TemporaryDirectory() as folder:
            files: Sequence[FoundFile] = [found]
            if not found.problem and is_archive(found.name):
                try:
                    files = self._child.compute(unpack, found, Path(folder), seconds=_seconds(found))
                    if not files:
                        self.skipped[found.name] = "is empty"
                except (Unreadable, ChildDied, MemoryError) as error:
                    files = [FoundFile(name=found.name, path=found.path, problem=_reason(error))]
            for one in files:
                if one.problem:
                    (self.skipped if one.skipped else self.problems)[one.name] = one.problem
                elif one.name in self.read:
                    self.problems[one.name] = (
                        "has the same name as another file: its documents would replace that one's"
                    )
                else:
                    yield from self._read(one, source, Path(folder) / "documents")

    def file_of(self, line: int) -> str:
        """Which file gave the document that came as number `line`, from 1; empty where none did."""
        for name, documents in self.read.items():
            line -= documents
            if line <= 0:
                return name
        return ""

    def _read(self, one: FoundFile, source: str, target: Path) -> Iterator[bytes]:
        ours = {"ingested": {"source": source, "file": one.name}}
        try:
            self._child.compute(write_documents, one, {**self.metadata, **ours}, target, seconds=_seconds(one))
        except (Unreadable, ChildDied, MemoryError) as error:
            self.problems[one.name] = _reason(error)
            return
        self.read[one.name] = 0
        with target.open("rb") as lines:
            for line in lines:
                self.read[one.name] += 1
                yield line
        if not self.read[one.name]:
            del self.read[one.name]
            self.skipped[one.name] = "has no text"


def _seconds(found: FoundFile) -> float:
    return BASE_SECONDS + found.path.stat().st_size / BYTES_PER_SECOND


def _reason(error: Exception) -> str:
    return (
        str(error) if isinstance(error, Unreadable) else "takes more time or memory than it may, or crashes its parser"
    )


def _plain(value: Any) -> Any:
    """What JSON has no type for, as tables have it: a time, a decimal number, bytes."""
    return (
        value.isoformat() if hasattr(value, "isoformat") else float(value) if isinstance(value, Decimal) else str(value)
    )


def write_documents(found: FoundFile, metadata: Mapping[str, Any], target: Path) -> None:
    """In the child process: what the file holds, one document a line. Unreadable says why it cannot be read."""
    suffix = PurePosixPath(found.name).suffix.lower()
    facts = {"path": found.name, "type": suffix.removeprefix(".") or "txt", "modified": found.modified}
    metadata = {**{name: value for name, value in facts.items() if value}, **metadata}
    try:
        if suffix in ROWS:
            documents = rows_as_documents(found.name, ROWS[suffix](found.path), metadata)
        else:
            documents = READERS.get(suffix, read_text)(found, metadata)
        with target.open("wb") as file:
            for document in documents:
                file.write(json.dumps(document, ensure_ascii=False, default=_plain).encode(errors="replace") + b"\n")
                if file.tell() > MAX_DOCUMENTS_BYTES:
                    raise Unreadable(f"gives more than {MAX_DOCUMENTS_BYTES} bytes of text")
    except (Unreadable, MemoryError):
        raise
    except ImportError as error:
        raise Unreadable("needs a library that is not installed: pip install 'azimuth-search[files]'") from error
    except Exception as error:  # parsers raise whatever their authors did not foresee
        raise Unreadable(f"cannot be read as {suffix or 'text'}: {type(error).__name__}: {error}"[:500]) from error
