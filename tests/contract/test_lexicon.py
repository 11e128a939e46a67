"""What the search story may rely on from any Lexicon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

import pytest

from service.domain import Candidate, Collection, DocumentId, Position
from service.ports import Lexicon
from service.store.follower import Follower
from service.store.lexical import TantivyLexicon
from tests.feed import FileFeed, collection

INSTALLATION = UUID("5a000000-0000-4000-8000-000000000001")


class Subject(Protocol):
    """A lexicon, and a way to give it documents that waits until they can be found."""

    lexicon: Lexicon
    papers: Collection

    async def write(self, *documents: tuple[str, str] | str) -> Position: ...


class TantivySubject:
    def __init__(self, lexicon: TantivyLexicon, feed: FileFeed) -> None:
        self.lexicon: Lexicon = lexicon
        self.papers = feed.collections[0]
        self._feed = feed

    async def write(self, *documents: tuple[str, str] | str) -> Position:
        position = self._feed.write(*documents)
        async with asyncio.timeout(10):
            await self.lexicon.reached(self.papers, position)
        return position


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    feed = FileFeed(tmp_path / "feed", collection(created_at=datetime.now(UTC)))
    lexicon = TantivyLexicon(tmp_path / "lexical", INSTALLATION)
    stop = asyncio.Event()
    following = asyncio.create_task(Follower(lexicon, feed, feed).run(stop))
    yield TantivySubject(lexicon, feed)
    stop.set()
    await following
    await lexicon.close()


def ids(candidates: tuple[Candidate, ...]) -> list[str]:
    return [candidate.document_id for candidate in candidates]


async def test_finds_documents_by_their_words_best_first(subject: Subject) -> None:
    await subject.write(
        ("once", "a heron stood among many other birds of the shore and the long reeds"),
        ("often", "heron, heron and heron"),
        ("never", "a pike in the pond"),
    )
    found = await subject.lexicon.search(subject.papers, "heron", 10)
    assert ids(found) == ["often", "once"]
    assert found[0].score > found[1].score > 0
    assert [candidate.chunk for candidate in found] == [None, None]


async def test_nothing_was_written_so_nothing_is_found(subject: Subject) -> None:
    assert await subject.lexicon.search(subject.papers, "heron", 10) == ()


async def test_candidates_carry_the_revision_that_was_indexed(subject: Subject) -> None:
    await subject.write(("a", "first"), ("b", "other"))
    position = await subject.write(("a", "second"))
    assert await subject.lexicon.search(subject.papers, "first", 10) == ()
    (candidate,) = await subject.lexicon.search(subject.papers, "second", 10)
    assert candidate.content_revision == position.xid


async def test_a_deleted_document_is_not_found(subject: Subject) -> None:
    await subject.write(("a", "heron"), ("b", "heron"))
    await subject.write("a")
    assert ids(await subject.lexicon.search(subject.papers, "heron", 10)) == ["b"]


async def test_a_document_that_comes_back_is_found_once(subject: Subject) -> None:
    await subject.write(("a", "heron"))
    await subject.write("a")
    await subject.write(("a", "heron again"))
    assert ids(await subject.lexicon.search(subject.papers, "heron", 10)) == ["a"]


async def test_inflected_words_meet(subject: Subject) -> None:
    await subject.write(("a", "He was running through the CAFÉS"))
    assert ids(await subject.lexicon.search(subject.papers, "cafe runs", 10)) == ["a"]


async def test_within_restricts_and_leaves_scores_alone(subject: Subject) -> None:
    await subject.write(*((f"d{n}", "heron " * n + "bird") for n in range(1, 6)))
    everywhere = {c.document_id: c.score for c in await subject.lexicon.search(subject.papers, "heron", 10)}
    chosen = [DocumentId("d2"), DocumentId("d4"), DocumentId("unknown")]
    within = await subject.lexicon.search(subject.papers, "heron", 10, chosen)
    assert ids(within) == ["d4", "d2"]
    assert {c.document_id: c.score for c in within} == pytest.approx(
        {name: everywhere[name] for name in (DocumentId("d2"), DocumentId("d4"))}
    )


async def test_within_nothing_is_nothing(subject: Subject) -> None:
    await subject.write(("a", "heron"))
    assert await subject.lexicon.search(subject.papers, "heron", 10, []) == ()


async def test_within_does_not_find_what_does_not_match(subject: Subject) -> None:
    await subject.write(("a", "heron"), ("b", "pike"))
    assert await subject.lexicon.search(subject.papers, "heron", 10, [DocumentId("b")]) == ()


async def test_at_most_limit_and_equal_scores_in_the_order_of_ids(subject: Subject) -> None:
    await subject.write(*((f"d{n:02}", "the same heron") for n in reversed(range(30))))
    assert ids(await subject.lexicon.search(subject.papers, "heron", 5)) == [f"d{n:02}" for n in range(5)]
    assert await subject.lexicon.search(subject.papers, "heron", 0) == ()


@pytest.mark.parametrize("text", ["", " ", "!?", "AND OR NOT", '"heron', "heron:*", "a:b^2 +c -d ~", "\x00", "\ud800"])
async def test_text_is_only_words(subject: Subject, text: str) -> None:
    await subject.write(("a", "heron"))
    assert set(ids(await subject.lexicon.search(subject.papers, text, 10))) <= {"a"}


async def test_highlights_mark_the_matches_and_escape_the_rest(subject: Subject) -> None:
    await subject.write(("a", "herons & <b>pikes</b>"))
    passages = ["See: herons & <b>pikes</b> swim", "nothing of the kind", ""]
    (first,), *others = await subject.lexicon.highlight(subject.papers, "heron", passages)
    assert "<mark>herons</mark> &amp; &lt;b&gt;pikes" in first
    assert others == [(), ()]


async def test_reached_waits_for_what_is_not_there_yet(subject: Subject) -> None:
    position = await subject.write(("a", "heron"))
    beyond = Position(xid=position.xid + 1000)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await subject.lexicon.reached(subject.papers, beyond)
            pytest.fail("returned although nobody wrote that far")
    await subject.lexicon.reached(subject.papers, position)


async def test_lag_is_zero_when_all_is_followed(subject: Subject) -> None:
    await subject.write(("a", "heron"))
    async with asyncio.timeout(10):
        while subject.lexicon.lag_seconds(subject.papers.id) != 0:
            await asyncio.sleep(0.01)
