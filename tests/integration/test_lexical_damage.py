"""Damaged lexical indexes: found before they are read, never searched in silence, built anew."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from service.core.errors import LexiconUnavailable
from service.store.lexical import lexicon as lexicon_module
from service.store.lexical.lexicon import TantivyLexicon
from service.store.lexical.progress import mark_damaged
from tests.feed import FileFeed
from tests.integration.test_lexical_follower import (
    PAPERS,
    entries,
    feed,
    following,
    found,
    progress_on_disk,
    reached,
    root,
)
from tests.running import until

__all__ = ["feed", "root"]

pytestmark = pytest.mark.slow

DOCUMENTS = 300


def first(path: Path, ending: str) -> Path:
    return next(path.glob(f"*.{ending}"))


def truncate(ending: str, size: float) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        file = first(path, ending)
        with file.open("r+b") as opened:
            opened.truncate(int(file.stat().st_size * size))

    return harm


def flip_bit(ending: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        file = first(path, ending)
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 3)
            (byte,) = opened.read(1)
            opened.seek(-1, 1)
            opened.write(bytes([byte ^ 4]))

    return harm


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: next(path.glob(name)).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        (path / name).write_text(text)

    return harm


def empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def replace_by_folder(path: Path) -> None:
    file = first(path, "idx")
    file.unlink()
    file.mkdir()


def newer_format(path: Path) -> None:
    for file in path.glob("*.*"):
        raw = file.read_bytes()
        file.write_bytes(raw.replace(b'"index_format_version":7', b'"index_format_version":9'))


def exchange_segments(path: Path) -> None:
    """Both files are whole, and each is the other's."""
    idx, pos = first(path, "idx"), first(path, "pos")
    contents = idx.read_bytes()
    idx.write_bytes(pos.read_bytes())
    pos.write_bytes(contents)


HARMS: dict[str, Callable[[Path], None]] = {
    **{f"{ending} truncated": truncate(ending, 0.5) for ending in ("idx", "store", "fieldnorm")},
    "term empty": truncate("term", 0),
    "store longer": truncate("store", 2),
    **{f"{ending} flipped": flip_bit(ending) for ending in ("pos", "term", "store", "fast", "del")},
    "segment missing": remove("*.term"),
    "deletions missing": remove("*.del"),
    "a folder for a file": replace_by_folder,
    "segments exchanged": exchange_segments,
    "newer format": newer_format,
    "no meta": remove("meta.json"),
    "torn meta": write("meta.json", '{"segments": [{"segm'),
    "meta of another kind": write("meta.json", '{"segments": 7, "opstamp": "x"}'),
    "meta of an empty index": write("meta.json", '{"segments": [], "schema": [], "opstamp": 0}'),
    "no position": remove("position.json"),
    "position of another kind": write("position.json", "[1, 2]"),
    "folder gone": shutil.rmtree,
    "folder empty": empty,
    "marked": mark_damaged,
}


async def fill(lexicon: TantivyLexicon, feed: FileFeed) -> None:
    await reached(lexicon, PAPERS, feed.write(*((f"d{n}", f"heron {n}") for n in range(DOCUMENTS))))
    await reached(lexicon, PAPERS, feed.write("d7"))


@pytest.mark.parametrize("harm", HARMS)
async def test_damage_done_while_nobody_runs_is_never_searched(root: Path, feed: FileFeed, harm: str) -> None:
    async with following(root, feed) as (lexicon, _):
        await fill(lexicon, feed)
    before = progress_on_disk(lexicon.path(PAPERS))
    HARMS[harm](lexicon.path(PAPERS))
    async with following(root, feed) as (lexicon, _):
        with suppress(LexiconUnavailable):
            assert len(await found(lexicon, PAPERS, "heron")) == DOCUMENTS - 1
        await reached(lexicon, PAPERS, feed.write(("new", "heron")))
        assert len(await found(lexicon, PAPERS, "heron")) == DOCUMENTS
        assert entries(lexicon.path(PAPERS)) == feed.live()
        assert progress_on_disk(lexicon.path(PAPERS)).generation != before.generation
        assert lexicon.state(PAPERS) == "ready"


@pytest.mark.parametrize("harm", sorted(HARMS.keys() - {"newer format"}))
async def test_damage_done_while_it_runs_is_survived_and_repaired(
    root: Path, feed: FileFeed, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexicon_module, "_VERIFY_PAUSE", 0.0)
    async with following(root, feed) as (lexicon, _):
        await fill(lexicon, feed)
        before = progress_on_disk(lexicon.path(PAPERS))
        HARMS[harm](lexicon.path(PAPERS))
        await lexicon.verify()
        assert lexicon.state(PAPERS) == "rebuilding" or "position" in harm or "folder" in harm or harm == "marked"
        for _ in range(5):
            with suppress(LexiconUnavailable):
                assert len(await found(lexicon, PAPERS, "heron")) == DOCUMENTS - 1

        def repaired() -> bool:
            index = lexicon.visible_progress(PAPERS)
            return index.complete and index.generation != before.generation

        await until(repaired)
        await reached(lexicon, PAPERS, feed.write(("new", "heron")))
        assert len(await found(lexicon, PAPERS, "heron")) == DOCUMENTS
        assert lexicon.state(PAPERS) == "ready"
