"""The contract of the port `Lexicon`, for the fake and for Tantivy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from service.core.change_feed import Position
from service.core.collections import Collection, CollectionSettings
from service.core.documents import Document
from service.core.ids import CollectionName, DocumentId
from service.core.ports.lexicon import Lexicon
from service.core.query_syntax import Highlights, ParsedQuery, TypoTolerance, parse_query
from service.core.search import Candidate
from service.core.versions import EmbedderIdentity
from service.store.lexical.follower import Follower
from service.store.lexical.lexicon import TantivyLexicon
from tests.fakes import FakeDocuments, FakeLexicon, FakeStore
from tests.feed import NOW, FileFeed, collection

INSTALLATION = UUID("5a000000-0000-4000-8000-000000000001")


@dataclass
class Subject:
    """A lexicon, and a way to put (id, text) pairs and to delete ids that waits until searches see it."""

    lexicon: Lexicon
    papers: Collection
    write: Callable[..., Awaitable[None]]


@pytest.fixture
async def memory() -> Subject:
    store = FakeStore()
    identity = EmbedderIdentity(parts={}, dimensions=4, max_tokens=16)
    papers = await store.collections.create(CollectionName("papers"), CollectionSettings(), identity, {}, NOW)
    stored = FakeDocuments(store)

    async def write(*documents: tuple[str, str] | str) -> None:
        put = [Document(id=DocumentId(one[0]), text=one[1]) for one in documents if isinstance(one, tuple)]
        await stored.put(papers.id, put, NOW)
        await stored.delete(papers.id, [DocumentId(one) for one in documents if isinstance(one, str)], NOW)

    return Subject(FakeLexicon(store), papers, write)


@asynccontextmanager
async def following_lexicon(folder: Path, language: str = "en") -> AsyncIterator[Subject]:
    """Tantivy's lexicon of one collection, which follows a feed."""
    feed = FileFeed(folder / "feed", collection(language=language, created_at=datetime.now(UTC)))
    lexicon = TantivyLexicon(folder / "lexical", INSTALLATION)
    (papers,) = feed.collections

    async def write(*documents: tuple[str, str] | str) -> None:
        position = feed.write(*documents)
        async with asyncio.timeout(60):
            await lexicon.wait_until(papers, position)

    stop = asyncio.Event()
    following = asyncio.create_task(Follower(lexicon, feed, feed).run(stop))
    yield Subject(lexicon, papers, write)
    stop.set()
    await following
    await lexicon.close()


@pytest.fixture
async def tantivy(tmp_path: Path) -> AsyncIterator[Subject]:
    """What only the real one promises: languages, BM25, safe HTML, and being behind."""
    async with following_lexicon(tmp_path) as subject:
        yield subject


@pytest.fixture(params=["memory", "tantivy"])
def subject(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.getfixturevalue(request.param)
    return chosen


def ids(candidates: tuple[Candidate, ...]) -> list[str]:
    return [candidate.document_id for candidate in candidates]


async def test_finds_documents_by_their_words_best_first(subject: Subject) -> None:
    await subject.write(("a", "heron"), ("b", "pike and heron"), ("c", "a perch in the pond"))
    found = await subject.lexicon.search(subject.papers, ParsedQuery(text="heron pike"), 10)
    assert ids(found) == ["b", "a"]
    assert found[0].score > found[1].score > 0
    assert [candidate.chunk for candidate in found] == [None, None]


async def test_a_word_counts_more_where_it_is_said_often_and_little_else_is(tantivy: Subject) -> None:
    await tantivy.write(
        ("once", "a heron stood among many other birds of the shore and the long reeds"),
        ("often", "heron, heron and heron"),
    )
    assert ids(await tantivy.lexicon.search(tantivy.papers, ParsedQuery(text="heron"), 10)) == ["often", "once"]


async def test_nothing_was_written_so_nothing_is_found(subject: Subject) -> None:
    assert await subject.lexicon.search(subject.papers, ParsedQuery(text="heron"), 10) == ()


async def test_candidates_carry_the_revision_that_was_indexed(subject: Subject) -> None:
    await subject.write(("a", "first"), ("b", "other"))
    (old,) = await subject.lexicon.search(subject.papers, ParsedQuery(text="first"), 10)
    await subject.write(("a", "second"))
    assert await subject.lexicon.search(subject.papers, ParsedQuery(text="first"), 10) == ()
    (new,) = await subject.lexicon.search(subject.papers, ParsedQuery(text="second"), 10)
    assert new.content_revision > old.content_revision


async def test_a_deleted_document_is_not_found(subject: Subject) -> None:
    await subject.write(("a", "heron"), ("b", "heron"))
    await subject.write("a")
    assert ids(await subject.lexicon.search(subject.papers, ParsedQuery(text="heron"), 10)) == ["b"]


async def test_a_document_that_comes_back_is_found_once(subject: Subject) -> None:
    await subject.write(("a", "heron"))
    await subject.write("a")
    await subject.write(("a", "heron again"))
    assert ids(await subject.lexicon.search(subject.papers, ParsedQuery(text="heron"), 10)) == ["a"]


async def test_inflected_words_meet(tantivy: Subject) -> None:
    await tantivy.write(("a", "He was running through the CAFÉS"))
    assert ids(await tantivy.lexicon.search(tantivy.papers, ParsedQuery(text="cafe runs"), 10)) == ["a"]


async def test_no_hit_scores_more_than_the_ceiling_and_unknown_words_raise_it(subject: Subject) -> None:
    await subject.write(("once", "heron"), ("often", "heron " * 50 + "pike"), ("none", "a perch in the pond"))
    words = ParsedQuery(text="heron pike")
    ceiling = await subject.lexicon.max_score(subject.papers, words)
    best = (await subject.lexicon.search(subject.papers, words, 1))[0].score
    assert 0 < best <= ceiling
    assert await subject.lexicon.max_score(subject.papers, ParsedQuery(text="heron pike zeppelin")) > ceiling


async def test_the_ceiling_is_what_endless_repetition_comes_near_to(tantivy: Subject) -> None:
    await tantivy.write(
        ("endless", "heron " * 2_000), *((f"d{n}", f"perch number {n} of the pond") for n in range(500))
    )
    words = ParsedQuery(text="heron")
    (hit,) = await tantivy.lexicon.search(tantivy.papers, words, 10)
    assert hit.score / await tantivy.lexicon.max_score(tantivy.papers, words) == pytest.approx(1.0, abs=0.15)


async def test_how_many_documents_say_each_word(subject: Subject) -> None:
    await subject.write(("a", "heron and pike"), ("b", "heron heron"), ("c", "perch"))
    found = await subject.lexicon.document_frequencies(subject.papers, ParsedQuery(text="zeppelin heron pike"))
    assert sorted(found) == [0, 1, 2]
    assert await subject.lexicon.document_frequencies(subject.papers, ParsedQuery(text="heron heron")) == (2,)
    assert await subject.lexicon.document_frequencies(subject.papers, ParsedQuery(text="...")) == ()


async def test_words_are_counted_as_the_language_reads_them(tantivy: Subject) -> None:
    await tantivy.write(("a", "herons run"), ("b", "a running heron"))
    assert await tantivy.lexicon.document_frequencies(tantivy.papers, ParsedQuery(text="the Heron runs")) == (2, 2)


async def test_within_restricts_and_leaves_scores_alone(subject: Subject) -> None:
    await subject.write(*((f"d{n}", "heron " * n + "bird") for n in range(1, 6)))
    words = ParsedQuery(text="heron")
    everywhere = {one.document_id: one.score for one in await subject.lexicon.search(subject.papers, words, 10)}
    chosen = [DocumentId("d2"), DocumentId("d4"), DocumentId("unknown")]
    within = {one.document_id: one.score for one in await subject.lexicon.search(subject.papers, words, 10, chosen)}
    assert within == pytest.approx({name: everywhere[name] for name in chosen[:2]})


@pytest.mark.parametrize("within", [[], ["b"]])
async def test_within_does_not_find_what_does_not_match(subject: Subject, within: list[DocumentId]) -> None:
    await subject.write(("a", "heron"), ("b", "pike"))
    assert await subject.lexicon.search(subject.papers, ParsedQuery(text="heron"), 10, within) == ()


async def test_at_most_limit_and_equal_scores_in_the_order_of_ids(subject: Subject) -> None:
    await subject.write(*((f"d{n:02}", "the same heron") for n in reversed(range(30))))
    found = await subject.lexicon.search(subject.papers, ParsedQuery(text="heron"), 5)
    assert ids(found) == [f"d{n:02}" for n in range(5)]
    assert await subject.lexicon.search(subject.papers, ParsedQuery(text="heron"), 0) == ()


async def test_highlights_mark_the_matches_and_escape_the_rest(tantivy: Subject) -> None:
    await tantivy.write(("a", "herons & <b>pikes</b>"))
    passages = ["See: herons & <b>pikes</b> swim", "nothing of the kind", ""]
    first, *others = await tantivy.lexicon.highlight(tantivy.papers, ParsedQuery(text="heron"), passages)
    assert "<mark>herons</mark> &amp; &lt;b&gt;pikes" in first.fragments[0]
    assert [passages[0][start:end] for start, end in first.spans] == ["herons"]
    assert others == [Highlights(), Highlights()]


async def test_highlights_are_aligned_with_the_passages(subject: Subject) -> None:
    await subject.write(("a", "heron"))
    nothing, first = await subject.lexicon.highlight(subject.papers, ParsedQuery(text="heron"), ["a pond", "a heron"])
    assert nothing == Highlights()
    assert "<mark>heron</mark>" in first.fragments[0]
    assert first.spans == ((2, 7),)


async def test_reached_waits_for_what_is_not_there_yet(tantivy: Subject) -> None:
    await tantivy.write(("a", "heron"))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await tantivy.lexicon.wait_until(tantivy.papers, Position(xid=1000))
            pytest.fail("returned although nobody wrote that far")


async def test_lag_is_zero_when_all_is_followed(subject: Subject) -> None:
    await subject.write(("a", "heron"))
    async with asyncio.timeout(10):
        while subject.lexicon.lag_seconds(subject.papers.id) != 0:
            await asyncio.sleep(0.01)


POND = (("a", "the grey heron of the pond"), ("b", "a heron, grey with age, at a pond"), ("c", "heron and pike"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("grey heron", {"a", "b", "c"}),
        ('"grey heron"', {"a"}),
        ('heron "grey heron"', {"a"}),
        ('+"grey heron"', {"a"}),
        ("heron +pond", {"a", "b"}),
        ("heron -pike", {"a", "b"}),
        ('heron -"grey heron"', {"b", "c"}),
        ("heron +pond -age", {"a"}),
        ("heron +unheard", set()),
        ('heron "unheard of"', {"a", "b", "c"}),
        ('heron "unheard of" "grey heron"', {"a"}),
        ("-heron", {"a", "b", "c"}),
    ],
)
async def test_wishes_bind(subject: Subject, query: str, expected: set[str]) -> None:
    await subject.write(*POND)
    words = parse_query(query)
    assert set(ids(await subject.lexicon.search(subject.papers, words, 10))) == expected
    everyone = [DocumentId(name) for name in ("a", "b", "c", "nobody")]
    fulfilling = await subject.lexicon.matching_constraints(subject.papers, words, everyone)
    assert fulfilling - {"nobody"} == expected


@pytest.mark.parametrize(
    ("query", "found", "marked"),
    [
        ("hifi", ["signs", "joined"], ["Hi-Fi"]),
        ("hi-fi", ["signs", "apart", "joined"], ["Hi-Fi"]),
        ("threejs", ["joined", "signs"], ["three.js"]),
        ("oconnor", ["joined", "signs"], ["O'Connor"]),
        ("25000", ["joined", "signs"], ["25,000"]),
        ("+hifi", ["joined", "signs"], ["Hi-Fi"]),
        ("apart -hifi", ["apart"], []),
    ],
)
async def test_a_word_is_found_with_and_without_its_signs(
    tantivy: Subject, query: str, found: list[str], marked: list[str]
) -> None:
    signs = "Hi-Fi with three.js by O'Connor for 25,000"
    await tantivy.write(
        ("signs", signs), ("joined", "hifi threejs oconnor 25000"), ("apart", "hi fi set apart"), ("other", "x")
    )
    assert set(ids(await tantivy.lexicon.search(tantivy.papers, parse_query(query), 10))) == set(found)
    (highlights,) = await tantivy.lexicon.highlight(tantivy.papers, parse_query(query), [signs])
    assert [signs[start:end] for start, end in highlights.spans] == marked
    if found != ["apart"]:
        scores = await tantivy.lexicon.score_passages(tantivy.papers, parse_query(query), ["no such word", signs])
        assert scores[1] > scores[0]


async def test_quotations_that_no_document_says_are_named(subject: Subject) -> None:
    await subject.write(*POND)
    words = parse_query('"grey heron" "unheard of" +"never said"')
    assert await subject.lexicon.unmatched_terms(subject.papers, words) == ("unheard of",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("java -jar", {"-jar"}),
        ("-jar java", {"-jar"}),
        ("java -verbose -dry-run", {"-verbose", "-dry-run"}),
        ("java -coffee -list", set()),
        ("java -with", {"-with"}),
    ],
)
async def test_hyphens_that_documents_write_exclude_nothing(tantivy: Subject, text: str, found: set[str]) -> None:
    await tantivy.write(("a", "java -jar app.jar runs it, `--verbose` or (--dry-run) says more"), ("b", "- and\n-list"))
    assert await tantivy.lexicon.options(tantivy.papers, text) == found


async def test_phrases_are_read_as_documents_are(tantivy: Subject) -> None:
    await tantivy.write(("a", "Two Grey Herons"), ("b", "the grey and the heron"), ("c", "to be or not to be"))
    assert ids(await tantivy.lexicon.search(tantivy.papers, parse_query('"grey heron"'), 10)) == ["a"]
    assert ids(await tantivy.lexicon.search(tantivy.papers, parse_query('hamlet "to be or not"'), 10)) == ["c"]


async def test_an_unknown_word_may_stand_for_a_similar_one(tantivy: Subject) -> None:
    await tantivy.write(("a", "a heron in the reeds"), ("b", "a pike in the pond"))
    assert ids(await tantivy.lexicon.search(tantivy.papers, ParsedQuery(text="hreon"), 10)) == []
    words = ParsedQuery(text="hreon", typos=TypoTolerance())
    assert ids(await tantivy.lexicon.search(tantivy.papers, words, 10)) == ["a"]
    (found,) = await tantivy.lexicon.highlight(tantivy.papers, words, ["a heron in the reeds"])
    assert found.spans == ((2, 7),)


async def test_a_known_word_stands_for_itself(tantivy: Subject) -> None:
    await tantivy.write(("a", "heron"), ("b", "herons nest here, hero"))
    typed = await tantivy.lexicon.search(tantivy.papers, ParsedQuery(text="hero", typos=TypoTolerance()), 10)
    assert typed == await tantivy.lexicon.search(tantivy.papers, ParsedQuery(text="hero"), 10)


@pytest.fixture
async def mixed(tmp_path: Path) -> AsyncIterator[Subject]:
    async with following_lexicon(tmp_path, language="auto") as subject:
        yield subject


async def test_each_document_is_read_in_its_language(mixed: Subject) -> None:
    await mixed.write(
        ("de", "Die alten Häuser der Stadt stehen am Fluss, und niemand weiß, wer sie gebaut hat."),
        ("en", "The old houses of the town stand by the river, and nobody knows who built them."),
        ("es", "Las casas viejas de la ciudad están junto al río, y nadie sabe quién las construyó."),
        ("zh", "城市的老房子在河边，没有人知道是谁建造的。"),
        ("th", "บ้านเก่าของเมืองตั้งอยู่ริมแม่น้ำ และไม่มีใครรู้ว่าใครสร้าง"),
    )
    for query, expected in (
        ("Wer hat das alte Haus am Fluss gebaut?", "de"),
        ("Who built the old house by the river?", "en"),
        ("¿Quién construyó la casa vieja?", "es"),
        ("谁建造了房子", "zh"),
        ("ใครสร้างบ้านเก่า", "th"),
    ):
        assert ids(await mixed.lexicon.search(mixed.papers, ParsedQuery(text=query), 10))[:1] == [expected]
    assert ids(await mixed.lexicon.search(mixed.papers, parse_query("+Haus Häuser"), 10)) == ["de"]
    (found,) = await mixed.lexicon.highlight(mixed.papers, ParsedQuery(text="Haus am Fluss"), ["Häuser am Fluss"])
    assert found.spans[0] == (0, 6)


@pytest.mark.parametrize(
    ("query", "best", "others"),
    [
        (
            "what does E-7325 mean",
            "Fault E-7325: the pump stands still.",
            ["Fault E-7352: a fault.", "What does it mean"],
        ),
        ("1.2.3", "Fixed in v1.2.3 of the driver.", ["Fixed in 1.3.2 and 3.2.1 and 2.1.3.", "1 and 2 and 3"]),
        ('press "reset all" fault', "A fault: reset all of it.", ["Reset the fault, all of it.", "fault press fault"]),
        ("+sluice fault fault", "The sluice gate.", ["A fault is a fault.", "Fault of the pump"]),
        ("batteries", "The battery is empty.", ["The bat flies at night.", "Nothing of the kind."]),
        ("C++ fault", "A fault of C++ code.", ["A fault of C code.", "A fault."]),
        ("fault of the sluice", "The sluice gate.", ["The fault.", "A fault of the pump."]),
        ("to be or not to be", "To be or not to be.", ["A fault.", "Nothing."]),
    ],
)
async def test_the_passage_that_says_it_scores_best(tantivy: Subject, query: str, best: str, others: list[str]) -> None:
    """Among passages that are analysed, and among so many that most are only looked through."""
    manual = " ".join([best, *others])
    await tantivy.write(("manual", manual), *((f"n{at}", f"A fault of part {at}.") for at in range(5)))
    for filler in ([], ["Every fault is written down by the staff. " * 20] * 200):
        passages = [*others, *filler, best]
        scores = await tantivy.lexicon.score_passages(tantivy.papers, parse_query(query), passages)
        assert len(scores) == len(passages)
        assert max(scores) == scores[-1] > max(scores[:-1]) >= 0
    assert await tantivy.lexicon.score_passages(tantivy.papers, parse_query(query), []) == ()
    assert await tantivy.lexicon.score_passages(tantivy.papers, parse_query(query), ["", "🙂"]) == (0.0, 0.0)


async def test_a_passage_in_a_language_without_spaces_scores_by_its_words(mixed: Subject) -> None:
    passages = ["城市的老房子在河边。", "没有人知道是谁建造的。", "Nobody knows."]
    await mixed.write(("zh", "".join(passages)), ("en", "The old houses of the town stand by the river."))
    scores = await mixed.lexicon.score_passages(mixed.papers, ParsedQuery(text="谁建造"), passages)
    assert max(scores) == scores[1] > scores[2] == 0


@pytest.mark.parametrize(
    ("query", "passage", "marked"),
    [
        ("fault E-7325", "See e-7325 and E-73251, xE-7325.", ["e-7325"]),
        ("10.0.0.1", "Use 10.0.0.1.", ["10.0.0.1"]),
        ("C++", "C++ and C", ["C++", "C"]),
    ],
)
async def test_an_identifier_is_marked_as_one(tantivy: Subject, query: str, passage: str, marked: list[str]) -> None:
    await tantivy.write(("a", passage))
    (found,) = await tantivy.lexicon.highlight(tantivy.papers, ParsedQuery(text=query), [passage])
    spans = [passage[start:end] for start, end in found.spans]
    assert [one for one in spans if one in marked] == marked
    assert f"<mark>{marked[0]}</mark>" in found.fragments[0]
