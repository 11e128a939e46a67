"""The lexical probe: against every sampled document as it is, and not where one changed meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from service.core.collections import Collection
from service.core.ids import DocumentId
from service.core.ports.lexicon import LexiconState
from service.core.query_syntax import ParsedQuery, parse_query
from service.core.recall import RecallStats
from service.core.search import Candidate
from service.recall.lexical_probe import SAMPLE_DOCUMENTS, SAMPLE_SECONDS, LexicalProbe
from tests.fakes import FakeLexicon, FakeStore, FakeVectors
from tests.lossy_index import WordTruth
from tests.world import World, build, doc

WORDS = ParsedQuery(text="number")


class LossyLexicon(FakeLexicon):
    """Does not find the documents in `lost`, and is in the state `current`."""

    def __init__(self, store: FakeStore) -> None:
        super().__init__(store)
        self.lost: frozenset[str] = frozenset()
        self.current: LexiconState = "ready"
        self.asked: list[ParsedQuery] = []

    async def search(
        self, collection: Collection, words: ParsedQuery, limit: int, within: Sequence[DocumentId] | None = None
    ) -> tuple[Candidate, ...]:
        self.asked.append(words)
        found = await super().search(collection, words, 1_000, within)
        return tuple(one for one in found if one.document_id not in self.lost)[:limit]

    def state(self, collection: Collection) -> LexiconState:
        return self.current


@dataclass
class Scene:
    world: World
    lexicon: LossyLexicon
    truth: WordTruth
    probe: LexicalProbe
    seconds: list[float]

    async def probe_once(self, words: ParsedQuery = WORDS) -> RecallStats | None:
        return await self.probe.probe(self.world.collection, self.world.version, words)

    async def recalls(self) -> tuple[float, float]:
        """By id and by distance."""
        stats = await self.probe_once() or RecallStats()
        assert stats.queries == 1
        return stats.recall, stats.distance_recall


@pytest.fixture
async def scene() -> Scene:
    """Eight documents that say "number", and two that do not."""
    world = await build(None)
    assert world.fake is not None
    await world.put(*(doc(f"d{number}", "number" if number < 8 else "other") for number in range(10)))
    await world.drain()
    lexicon, truth, seconds = LossyLexicon(world.fake), WordTruth(), [0.0]
    probe = LexicalProbe(
        lexicon=lexicon,
        truth=truth,
        vectors=FakeVectors(world.fake),
        documents=world.documents,
        clock=lambda: seconds[-1],
    )
    return Scene(world, lexicon, truth, probe, seconds)


async def test_an_index_that_knows_all_of_it_has_recall_1(scene: Scene) -> None:
    assert await scene.recalls() == (1.0, 1.0)


async def test_documents_that_the_index_does_not_know_are_missed(scene: Scene) -> None:
    scene.lexicon.lost = frozenset({"d1", "d2"})
    assert await scene.recalls() == (0.75, 0.75)


async def test_words_that_no_document_has_measure_nothing(scene: Scene) -> None:
    assert await scene.probe_once(ParsedQuery(text="nobody")) == RecallStats()


async def test_constraints_and_identifiers_are_left_out(scene: Scene) -> None:
    words = parse_query('number +other -"something else"', "wishes")
    assert words.has_constraints
    await scene.probe_once(words)
    assert scene.lexicon.asked == [ParsedQuery(text=words.text, identifiers=False)]


async def test_an_index_that_is_being_rebuilt_is_not_measured(scene: Scene) -> None:
    scene.lexicon.current = "rebuilding"
    assert await scene.probe_once() == RecallStats()


async def test_a_probe_is_void_where_a_document_changed_since_it_was_sampled(scene: Scene) -> None:
    await scene.probe_once()
    await scene.world.put(doc("d9", "number"))
    assert await scene.probe_once() is None
    assert await scene.recalls() == (1.0, 1.0), "the sample is drawn again"
    await scene.world.delete("d3")
    assert await scene.probe_once() is None


async def test_a_sample_serves_many_probes_and_is_drawn_again_now_and_then(scene: Scene) -> None:
    await scene.probe_once()
    counted = len(scene.truth.counted)
    await scene.probe_once()
    assert len(scene.truth.counted) == counted
    scene.seconds.append(SAMPLE_SECONDS)
    await scene.probe_once()
    assert len(scene.truth.counted) > counted


async def test_long_documents_are_left_out_and_the_sample_is_bounded(scene: Scene) -> None:
    await scene.world.put(doc("d0", "number " * 20_000))
    await scene.world.drain()
    assert await scene.recalls() == (1.0, 1.0)
    assert sum(scene.truth.counted) == 9 <= SAMPLE_DOCUMENTS
