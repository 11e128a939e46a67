"""Copies of lexical indexes while they are written, for backups and for API processes that begin."""

import asyncio
import shutil
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from service.core.change_feed import IndexMark
from service.core.errors import NotFound
from service.core.ids import CollectionId
from service.core.ports.change_feed import FollowedChanges
from service.store.lexical.progress import IndexProgress, read_progress, write_progress
from service.store.lexical.verification import IndexFiles

_TRIES = 5


async def copy_indexes(source: Path, target: Path, changes: FollowedChanges, now: datetime) -> int:
    """Copy the indexes that the database knows, each as one of its own, and none over another; returns how many.

    A copy gets a generation and a mark (`IndexMark`), so that a database that is restored with it, and whoever copies
    it again, know what it contains. It may hold more than its position says, which is then applied once more.
    """
    copied = 0
    for path in _directories(source):
        progress, destination = read_progress(path), target / path.name
        if progress is None or not progress.complete or destination.exists():
            continue
        collection_id, own = CollectionId(int(path.name.split("-")[0])), IndexMark(generation=uuid.uuid4().hex)
        with suppress(NotFound):
            page = await changes.after(collection_id, progress.position, 1, now, progress.seen, progress.mark)
            token = None if page.rebuild else await changes.mark(collection_id, own, now)
            if token is not None:
                progress = replace(progress, generation=own.generation, token=token)
                copied += await asyncio.to_thread(_copy, path, destination, progress)
    return copied


def _directories(source: Path) -> list[Path]:
    return [path for path in sorted(source.glob("*-*")) if not path.suffix]


def _copy(source: Path, target: Path, progress: IndexProgress) -> bool:
    """The list of segments first, for the writer may replace segments meanwhile; then it is tried again."""
    for _ in range(_TRIES):
        draft = target.with_name(f"{target.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        files = sorted(source.iterdir(), key=lambda file: file.name != "meta.json")
        for file in files:
            with suppress(FileNotFoundError):
                shutil.copyfile(file, draft / file.name)
        write_progress(draft, progress)
        with suppress(ValueError):
            IndexFiles(draft, progress.opstamp).check()
            draft.rename(target)
            return True
    shutil.rmtree(draft, ignore_errors=True)
    return False
