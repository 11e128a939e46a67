"""The lexical indexes stay true to the feed: through crashes, damage, other analyzers and several processes."""

import asyncio
import contextlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
import tantivy
from prometheus_client import REGISTRY

from service.core.change_feed import Position
from service.core.collections import Collection
from service.core.errors import DatabaseUnavailable, LexiconUnavailable
from service.core.query_syntax import Highlights, ParsedQuery
from service.store.lexical import follower as follower_module
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.follower import Follower
from service.store.lexical.indexer import Indexer
from service.store.lexical.lexicon import TantivyLexicon
from service.store.lexical.progress import IndexProgress, read_progress, write_progress
from tests.feed import FileFeed, collection
from tests.running import running, until

INSTALLATION = UUID("5a000000-0000-4000-8000-000000000002")
PAPERS = collection()

_PROCESS = """
import asyncio, sys
from pathlib import Path
from tests.feed import FileFeed
from tests.integration.test_lexical_follower import INSTALLATION
from service.store.lexical.follower import Follower
from service.store.lexical.lexicon import TantivyLexicon

async def main():
    feed = FileFeed(Path(sys.argv[1]))
    print("up", flush=True)
    await Follower(TantivyLexicon(Path(sys.argv[2]), INSTALLATION), feed, feed).run(asyncio.Event())

asyncio.run(main())
"""

# Dies by its own hand at a point of the third commit: before it, between it and the position, or after both.
_SUICIDE = (
    """
import os, signal, sys
from service.store.lexical import indexer
from tests.feed import FileFeed

commit, write_progress, commits = indexer.Indexer.commit, indexer.write_progress, 0

def die_at(point):
    if commits == 3 and point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

def dying_commit(self, **arguments):
    global commits
    commits += self.pending > 0
    die_at("before the commit")
    commit(self, **arguments)

def dying_write(path, progress):
    die_at("before the position")
    write_progress(path, progress)
    die_at("after the position")

indexer.Indexer.commit, indexer.write_progress = dying_commit, dying_write
"""
    + _PROCESS
)


@contextlib.asynccontextmanager
async def following(root: Path, feed: FileFeed) -> AsyncIterator[tuple[TantivyLexicon, Follower]]:
    """A process's worth of lexicon and follower, in this process."""
    lexicon = TantivyLexicon(root, INSTALLATION)
    follower = Follower(lexicon, feed, feed)
    try:
        async with running(follower.run, 20):
            yield lexicon, follower
    finally:
        await lexicon.close()


async def reached(lexicon: TantivyLexicon, papers: Collection, position: Position) -> None:
    async with asyncio.timeout(20):
        await lexicon.wait_until(papers, position)


async def found(lexicon: TantivyLexicon, papers: Collection, text: str) -> list[str]:
    return sorted(candidate.document_id for candidate in await lexicon.search(papers, ParsedQuery(text=text), 10_000))


def entries(path: Path) -> dict[str, int]:
    """What the directory really holds: document -> content revision; a document twice fails."""
    searcher = tantivy.Index.open(str(path)).searcher()
    hits = searcher.search(tantivy.Query.all_query(), max(1, searcher.num_docs)).hits
    addresses = [address for _, address in hits]
    names = [searcher.doc(address)["document_id"][0] for address in addresses]
    assert len(names) == len(set(names))
    # The library types the values of every kind of field alike; this one holds whole numbers.
    revisions = cast(list[int], searcher.fast_field_values("content_revision", addresses))
    return dict(zip(names, revisions, strict=True))


def leads(follower: Follower) -> bool:
    """Asked anew at each call, where the type checker would take the attribute to stay as it was once seen."""
    return follower.leading


def progress_on_disk(path: Path) -> IndexProgress:
    progress = read_progress(path)
    assert progress is not None
    return progress


def position_on_disk(path: Path) -> Position:
    progress = read_progress(path)
    return progress.position if progress else Position()


@pytest.fixture
def feed(tmp_path: Path) -> FileFeed:
    return FileFeed(tmp_path / "feed")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "lexical"


async def test_catches_up_in_pages_with_what_was_written_before_it_started(root: Path, feed: FileFeed) -> None:
    position = feed.write(*((f"d{n}", f"heron number {n}") for n in range(2 * follower_module.PAGE + 7)))
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, position)
        assert len(await found(lexicon, PAPERS, "heron")) == 2 * follower_module.PAGE + 7
        assert entries(lexicon.path(PAPERS)) == feed.live()


async def test_goes_on_where_it_stopped(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "heron"), ("b", "heron")))
        life = progress_on_disk(lexicon.path(PAPERS))
    position = feed.write("a", ("c", "heron"))
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, position)
        assert await found(lexicon, PAPERS, "heron") == ["b", "c"]
        assert progress_on_disk(lexicon.path(PAPERS)).generation == life.generation


async def test_on_a_full_disk_it_writes_nothing_and_answers_with_what_it_has(
    root: Path, feed: FileFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "heron")))
        with monkeypatch.context() as full:
            full.setattr(follower_module, "has_room", lambda folder: False)
            position = feed.write(("b", "heron"))
            await until(lambda: (lexicon.lag_seconds(PAPERS.id) or 0) > 0)
            assert await found(lexicon, PAPERS, "heron") == ["a"]
        await reached(lexicon, PAPERS, position)
        assert await found(lexicon, PAPERS, "heron") == ["a", "b"]


async def test_cancelled_while_it_closes_it_leaves_its_lock_to_the_next(root: Path, feed: FileFeed) -> None:
    lexicon, stop, go_on = TantivyLexicon(root, INSTALLATION), asyncio.Event(), threading.Event()
    follower = Follower(lexicon, feed, feed)
    task = asyncio.create_task(follower.run(stop))
    await reached(lexicon, PAPERS, feed.write(("a", "heron")))  # its writer is open
    follower._thread.submit(go_on.wait)
    threading.Timer(0.2, go_on.set).start()
    stop.set()
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("b", "heron")))


async def test_an_old_position_is_replayed_without_doubling(root: Path, feed: FileFeed) -> None:
    """As after a crash between the commit and the writing of the position."""
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, first := feed.write(("a", "heron"), ("b", "heron")))
        await reached(lexicon, PAPERS, feed.write(("c", "heron"), "b"))
    path = lexicon.path(PAPERS)
    write_progress(path, replace(progress_on_disk(path), position=first, complete=True))
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("d", "heron")))
        assert entries(path) == feed.live()


async def test_told_to_rebuild_it_wipes_and_starts_from_zero(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("ghost", "heron"), ("b", "heron")))
    # The feed loses all memory of "ghost", as a purged tombstone does.
    feed.path.write_text(feed.path.read_text().replace('"ghost"', '"c"'))
    position = feed.write(("d", "heron"))
    feed.rebuild_before = position.xid
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, position)
        assert await found(lexicon, PAPERS, "heron") == ["b", "c", "d"]


def test_a_position_is_kept_whole(tmp_path: Path) -> None:
    progress = IndexProgress(generation="g", position=Position(xid=7, document_id='ä"\n', purged=3), complete=True)
    write_progress(tmp_path, progress)
    read = progress_on_disk(tmp_path)
    assert read == progress
    assert read.position.purged == 3  # plays no part in equality


async def test_killed_between_being_told_to_rebuild_and_the_wipe(root: Path, feed: FileFeed) -> None:
    """The position says zero and the index is still full, also of what the feed forgot."""
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("ghost", "heron"), ("b", "heron")))
    feed.path.write_text(feed.path.read_text().replace('"ghost"', '"c"'))
    path = lexicon.path(PAPERS)
    write_progress(path, replace(progress_on_disk(path), position=Position(), complete=False))
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("d", "heron")))
        assert await found(lexicon, PAPERS, "heron") == ["b", "c", "d"]


async def test_another_language_gets_another_directory_and_the_old_one_goes(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "die Häuser")))
        german = collection(language="de")
        feed.collections[:] = [german]
        await until(lambda: lexicon.state(german) == "ready")
        assert await found(lexicon, german, "Haus") == ["a"]
        await until(lambda: not lexicon.path(PAPERS).exists())


async def test_the_former_language_answers_and_is_followed_until_the_new_one_is_complete(
    root: Path, feed: FileFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    german = collection(language="de")
    complete, commit = asyncio.Event(), Indexer.commit

    def slow_commit(indexer: Indexer, *, caught_up: bool, token: str) -> None:
        commit(indexer, caught_up=caught_up and (complete.is_set() or indexer.path == english), token=token)

    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "die Häuser")))
        english = lexicon.path(PAPERS)
        assert lexicon.state(PAPERS) == "ready"
        monkeypatch.setattr(Indexer, "commit", slow_commit)
        feed.collections[:] = [german]
        await until(lambda: lexicon.path(german).exists())
        assert lexicon.state(german) == "rebuilding"
        await reached(lexicon, german, feed.write(("b", "Häuser")))
        assert await found(lexicon, german, "Haus") == [], "of English, which it still is"
        assert await found(lexicon, german, "Häuser") == ["a", "b"]
    # A process that starts meanwhile answers so too.
    async with following(root, feed) as (lexicon, _):
        assert await found(lexicon, german, "Häuser") == ["a", "b"]
        complete.set()
        await until(lambda: lexicon.state(german) == "ready")
        assert await found(lexicon, german, "Haus") == ["a", "b"]
        await until(lambda: not english.exists())


async def test_a_deleted_collection_leaves_nothing(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "heron")))
        assert REGISTRY.get_sample_value("azimuth_lexical_lag_seconds", {"collection": "papers"}) is not None
        feed.collections.clear()
        await until(lambda: not lexicon.path(PAPERS).exists())
        assert REGISTRY.get_sample_value("azimuth_lexical_lag_seconds", {"collection": "papers"}) is None
        with pytest.raises(LexiconUnavailable):
            await lexicon.search(PAPERS, ParsedQuery(text="heron"), 10)


async def test_collections_do_not_mix(root: Path, tmp_path: Path) -> None:
    birds, fish = collection(1, "birds"), collection(2, "fish")
    feed = FileFeed(tmp_path / "feed", birds, fish)
    async with following(root, feed) as (lexicon, _):
        first = feed.write(("a", "shared word"), collection_id=1)
        second = feed.write(("a", "shared term"), collection_id=2)
        await reached(lexicon, birds, first)
        await reached(lexicon, fish, second)
        assert await found(lexicon, birds, "term") == []
        assert await found(lexicon, fish, "term") == ["a"]


async def test_an_unfinished_build_is_not_searched(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "heron")))
    path = lexicon.path(PAPERS)
    write_progress(path, replace(progress_on_disk(path), complete=False))
    lexicon = TantivyLexicon(root, INSTALLATION)
    with pytest.raises(LexiconUnavailable, match="being built"):
        await lexicon.search(PAPERS, ParsedQuery(text="heron"), 10)
    await lexicon.close()


async def test_one_writes_and_the_others_see_it(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (one, first), following(root, feed) as (other, second):
        position = feed.write(("a", "heron"))
        await asyncio.gather(reached(one, PAPERS, position), reached(other, PAPERS, position))
        assert await found(one, PAPERS, "heron") == await found(other, PAPERS, "heron") == ["a"]
        assert sorted([first.leading, second.leading]) == [False, True]
        await until(lambda: one.lag_seconds(PAPERS.id) == other.lag_seconds(PAPERS.id) == 0)


async def test_the_next_one_takes_over(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (_, first):
        await until(lambda: first.leading)
        async with following(root, feed) as (other, second):
            await reached(other, PAPERS, feed.write(("a", "heron")))
            assert not second.leading
            # The lock's file is gone, so the lock is void: whoever held it steps down, and one of the two leads.
            (other.directory / "follower.lock").unlink()
            await reached(other, PAPERS, feed.write(("b", "heron")))
            await until(lambda: first.leading != second.leading)
            assert await found(other, PAPERS, "heron") == ["a", "b"]


async def test_the_whole_folder_may_vanish_while_it_runs(root: Path, feed: FileFeed) -> None:
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "heron")))
        shutil.rmtree(lexicon.directory)
        await reached(lexicon, PAPERS, feed.write(("b", "heron")))
        assert await found(lexicon, PAPERS, "heron") == ["a", "b"]


async def test_trouble_of_the_database_is_waited_out(
    root: Path, feed: FileFeed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = feed.after
    monkeypatch.setattr(follower_module, "_LIST_SECONDS", 0.05)
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("a", "heron")))

        async def refuse(*_: object) -> None:
            raise DatabaseUnavailable

        monkeypatch.setattr(feed, "after", refuse)
        await until(lambda: "cannot be read" in caplog.text)
        assert await found(lexicon, PAPERS, "heron") == ["a"]
        monkeypatch.setattr(feed, "after", read)
        await reached(lexicon, PAPERS, feed.write(("b", "heron")))


async def test_lag_grows_while_nobody_looks(root: Path, feed: FileFeed) -> None:
    lexicon = TantivyLexicon(root, INSTALLATION)
    assert lexicon.lag_seconds(PAPERS.id) is None
    lexicon.record_lag(PAPERS, 0.0)
    assert lexicon.lag_seconds(PAPERS.id) == 0.0
    lexicon.record_lag(PAPERS, 3.0)
    once = lexicon.lag_seconds(PAPERS.id) or 0.0
    assert once >= 3.0
    await until(lambda: (lexicon.lag_seconds(PAPERS.id) or 0.0) > once)
    await lexicon.close()


async def test_a_young_collection_is_empty_and_not_unavailable(root: Path, feed: FileFeed) -> None:
    lexicon = TantivyLexicon(root, INSTALLATION, now=lambda: PAPERS.created_at)
    assert await lexicon.search(PAPERS, ParsedQuery(text="heron"), 10) == ()
    assert await lexicon.highlight(PAPERS, ParsedQuery(text="heron"), ["a heron"]) == (Highlights(),)
    Indexer(lexicon.path(PAPERS), analyzer_for(PAPERS.settings.language))
    await lexicon.refresh(PAPERS)
    assert lexicon.visible_progress(PAPERS).generation
    assert not lexicon.is_current(PAPERS)  # it is there, and not complete
    assert await lexicon.search(PAPERS, ParsedQuery(text="heron"), 10) == ()
    await lexicon.close()


@pytest.mark.faults
async def test_killed_at_any_moment_nothing_is_lost_or_doubled(root: Path, feed: FileFeed) -> None:
    """A process is killed (-9) at random points while documents come, change and go; then compare with the input."""
    rng = random.Random(20250101)
    written = 0
    lexicon = TantivyLexicon(root, INSTALLATION)
    path = lexicon.path(PAPERS)
    await lexicon.close()
    for round_ in range(8):
        command = [sys.executable, "-c", _PROCESS, str(feed.path), str(root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "up\n"
            killed_at, given_up_at = time.monotonic() + rng.random(), time.monotonic() + 60
            # The first one lives until it has committed something, or there would be nothing to lose.
            while time.monotonic() < killed_at or (
                round_ == 0 and position_on_disk(path) == Position() and time.monotonic() < given_up_at
            ):
                batch = [(f"d{rng.randrange(3000)}", f"heron {rng.random()}") for _ in range(rng.randrange(1, 120))]
                feed.write(*batch, *(f"d{rng.randrange(3000)}" for _ in range(10)))
                written += 1
                await asyncio.sleep(rng.random() * 0.02)
        finally:
            process.kill()
            process.communicate()
    assert written > 50
    before = read_progress(path)
    assert before is not None, "no process ever committed: the test did not test"
    assert before.position.xid > 0
    async with following(root, feed) as (lexicon, _):
        await reached(lexicon, PAPERS, feed.write(("last", "heron")))
        assert progress_on_disk(lexicon.path(PAPERS)).generation == before.generation, (
            "built anew instead of carried on"
        )
        assert entries(lexicon.path(PAPERS)) == feed.live()
        assert len(await found(lexicon, PAPERS, "heron")) == len(feed.live())


@pytest.mark.faults
@pytest.mark.parametrize("point", ["before the commit", "before the position", "after the position"])
async def test_killed_around_a_commit(root: Path, feed: FileFeed, point: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", _SUICIDE, str(feed.path), str(root), point])
    try:
        for number in range(10_000):
            feed.write((f"d{number}", "heron"), (f"d{number // 2}", "another heron"), f"d{number // 3}")
            if process.poll() is not None:
                break
            await asyncio.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    async with following(root, feed) as (lexicon, _):
        assert position_on_disk(lexicon.path(PAPERS)) > Position()
        await reached(lexicon, PAPERS, feed.write("d0"))
        assert entries(lexicon.path(PAPERS)) == feed.live()


@pytest.mark.faults
async def test_when_the_writing_process_is_killed_another_goes_on(root: Path, feed: FileFeed) -> None:
    process = subprocess.Popen([sys.executable, "-c", _PROCESS, str(feed.path), str(root)])
    try:
        first = feed.write(("a", "heron"))
        reader = TantivyLexicon(root, INSTALLATION)
        await until(lambda: position_on_disk(reader.path(PAPERS)) >= first)
        await reader.close()
        async with following(root, feed) as (lexicon, follower):
            await reached(lexicon, PAPERS, feed.write(("b", "heron")))
            assert not leads(follower)
            process.kill()
            process.wait()
            await reached(lexicon, PAPERS, feed.write(("c", "heron")))
            assert leads(follower)
            assert await found(lexicon, PAPERS, "heron") == ["a", "b", "c"]
    finally:
        process.kill()
        process.wait()
