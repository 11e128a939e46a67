"""The query's story over fakes: what is answered, what is said about it, and what happens when a part is missing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from service.core import errors, filters
from service.core.change_feed import NOTHING_SEEN, Position
from service.core.collections import EXTERNAL, CollectionSettings, EmbedderSpec
from service.core.ids import CollectionName, VersionNumber
from service.core.jobs import EncodedDocument
from service.core.ports.reranker import RerankScores
from service.core.ports.vectors import VectorQuery
from service.core.query_syntax import ParsedQuery
from service.core.search import Candidate, FilterMatch, Mode, RerankRequest, SearchRequest
from service.core.versions import EmbedderVersion, SpaceStatus, VersionState
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.worker import document_chunker as passages
from service.search import context as context_module
from service.search.filter_planner import DEFAULT_EF_SEARCH
from service.spaces.model_verification import ModelVerifier
from tests.fakes import FakeLexicon, FakeVectors, FakeVersions
from tests.rivals import Rivals
from tests.world import NOW, doc

NAME = CollectionName("animals")
TEXTS = {
    "cat": "A cat is a small animal that purrs and hunts mice.",
    "dog": "A dog is an animal that barks and guards the house.",
    "cow": "A cow is a large animal that gives milk.",
    "car": "A car is a machine with four wheels and an engine.",
    "bus": "A bus is a machine that carries many people through the city.",
}


@dataclass
class Shouting:
    """A cross-encoder that likes what it is told to like."""

    favourite: str
    failure: Exception | None = None
    name: str = "shouting"
    portion: int = 2
    seen: list[str] = field(default_factory=list)

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        if self.failure is not None:
            raise self.failure
        self.seen += passages
        return RerankScores(scores=tuple(1.0 if self.favourite in passage else 0.1 for passage in passages))


class Zoo(Rivals):
    """A small collection with everything that a search needs."""

    async def open(self) -> None:
        spec, identity, canary = await self.verifier.register(EmbedderSpec())
        self.animals = await self.collections.create(NAME, CollectionSettings(embedder=spec), identity, canary, NOW)

    def mocked_lexicon(self, **search: Any) -> FakeLexicon:
        lexicon = FakeLexicon(self.store)
        lexicon.search = AsyncMock(**search)  # type: ignore[method-assign]
        return lexicon

    def mocked_vectors(self, nearest: Any) -> FakeVectors:
        vectors = FakeVectors(self.store)
        vectors.nearest = nearest  # type: ignore[method-assign]
        return vectors

    def lost_lexicon(self) -> FakeLexicon:
        return self.mocked_lexicon(side_effect=errors.LexiconUnavailable("being rebuilt"))

    def mocked_verifier(self, **ensure: Any) -> ModelVerifier:
        verifier = ModelVerifier(collections=self.collections, versions=self.versions, embedders=self.registry)
        verifier.ensure = AsyncMock(**ensure)  # type: ignore[method-assign]
        return verifier

    async def version(self) -> EmbedderVersion:
        return (await self.versions.of(self.animals.id))[0]

    async def write(self, texts: dict[str, str], *, encode: bool = True) -> None:
        documents = [doc(name, text, title=name, wheels=name in {"car", "bus"}) for name, text in texts.items()]
        await self.documents.put(self.animals.id, documents, NOW)
        if encode:
            await self.encode_all()

    async def encode_all(self) -> None:
        """What a worker would do."""
        version = await self.version()
        encoder = await self.verifier.ensure(version)
        claimed = await self.queue.claim([version], 100, "test", NOW, timedelta(seconds=60))
        for one in claimed:
            (chunks,) = passages.chunk_documents(encoder, [one.document], version.chunking)
            vectors = encoder.encode([chunk.text for chunk in chunks], "document")
            await self.vectors.write(version, [EncodedDocument(job=one.job, chunks=chunks, vectors=vectors)])


@pytest.fixture
async def zoo() -> Zoo:
    zoo = Zoo()
    await zoo.open()
    await zoo.write(TEXTS)
    return zoo


async def test_a_hybrid_answer_says_how_it_came_about(zoo: Zoo) -> None:
    answer = await zoo.search().run(NAME, SearchRequest(text="a small animal that purrs", k=3))
    assert (answer.embedder_version, answer.dense.kind, answer.degraded, answer.rerank_summary) == (
        1,
        "exact",
        (),
        None,
    )
    best = answer.hits[0]
    assert (best.id, best.text, best.score) == ("cat", TEXTS["cat"], best.explanation.fusion)
    assert [leg and leg.rank for leg in (best.explanation.dense, best.explanation.lexical)] == [1, 1]
    assert {"embed", "dense", "lexical", "fuse", "fetch"} <= answer.timings.seconds.keys()


@pytest.mark.parametrize(("mode", "other"), [("dense", "lexical"), ("lexical", "dense")])
async def test_one_leg_alone(zoo: Zoo, mode: str, other: str) -> None:
    answer = await zoo.search().run(NAME, SearchRequest(text="milk cow", k=1, mode=mode))  # type: ignore[arg-type]
    assert [hit.id for hit in answer.hits] == ["cow"]
    assert getattr(answer.hits[0].explanation, other) is None
    assert answer.dense.kind == ("exact" if mode == "dense" else "none")


async def test_both_legs_know_one_filter_however_many_pass(zoo: Zoo) -> None:
    where = filters.parse({"wheels": True})
    for cap in (100, 1):
        answer = await zoo.search(passing_cap=cap).run(NAME, SearchRequest(text="animal machine", where=where))
        assert {hit.id for hit in answer.hits} == {"car", "bus"}
        assert not answer.dense.underfilled
        assert answer.dense.selectivity is not None


async def test_without_a_reranker_the_answer_says_so(zoo: Zoo) -> None:
    answer = await zoo.search().run(NAME, SearchRequest(text="animal", rerank=RerankRequest()))
    assert [(one.stage, one.code) for one in answer.degraded] == [("rerank", "not_configured")]
    assert answer.hits
    assert not answer.rerank_summary


async def test_the_reranker_blends_and_the_unread_stay_behind(zoo: Zoo) -> None:
    reranker = Shouting("milk")
    request = SearchRequest(text="a small animal that purrs", rerank=RerankRequest(depth=3, weight=0.9))
    answer = await zoo.search(reranker=reranker).run(NAME, request)
    assert (len(reranker.seen), answer.rerank_summary is not None) == (3, True)
    first = answer.hits[0].explanation.rerank
    assert (answer.hits[0].id, first and first.rank) == ("cow", 1)
    assert [hit.explanation.rerank is not None for hit in answer.hits] == [True] * 3 + [False] * (len(answer.hits) - 3)
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)


async def test_a_reranker_that_fails_is_named_and_the_first_stage_answers(zoo: Zoo) -> None:
    plain = await zoo.search().run(NAME, SearchRequest(text="animal"))
    broken = Shouting("", errors.ModelUnavailable("out of memory"))
    answer = await zoo.search(reranker=broken).run(NAME, SearchRequest(text="animal", rerank=RerankRequest()))
    assert [hit.id for hit in answer.hits] == [hit.id for hit in plain.hits]
    assert [(one.stage, one.reason) for one in answer.degraded] == [("rerank", "out of memory")]


async def test_without_the_lexical_index_a_hybrid_search_is_dense_and_says_so(zoo: Zoo) -> None:
    search = zoo.search(lexicon=zoo.lost_lexicon())
    answer = await search.run(NAME, SearchRequest(text="animal"))
    assert answer.hits
    assert [(one.stage, one.code) for one in answer.degraded] == [("lexical", "LexiconUnavailable")]
    with pytest.raises(errors.LexiconUnavailable):
        await search.run(NAME, SearchRequest(text="animal", mode="lexical"))


async def test_a_foreign_model_never_answers_in_a_space(zoo: Zoo) -> None:
    refusing = zoo.mocked_verifier(side_effect=errors.SpaceRefused("weights differ"))
    search = zoo.search(verifier=refusing)
    with pytest.raises(errors.SpaceRefused):
        await search.run(NAME, SearchRequest(text="animal", mode="dense"))
    answer = await search.run(NAME, SearchRequest(text="animal"))
    assert [(one.stage, one.reason) for one in answer.degraded] == [("embed", "weights differ")]
    assert all(hit.explanation.dense is None for hit in answer.hits)
    with pytest.raises(errors.Unavailable):
        await zoo.search(verifier=refusing, lexicon=zoo.lost_lexicon()).run(NAME, SearchRequest(text="animal"))


async def test_what_changed_after_it_was_encoded_is_dropped_and_refilled(zoo: Zoo) -> None:
    texts = {f"bee{number}": f"bees make honey number {number}" for number in range(30)}
    await zoo.write(texts)
    await zoo.write({name: f"{text} no more, wasps only" for name, text in list(texts.items())[:20]}, encode=False)
    answer = await zoo.search().run(NAME, SearchRequest(text="bees make honey", mode="dense", k=10, candidates=10))
    assert len(answer.hits) == 10
    assert all("wasps" not in hit.text for hit in answer.hits)


async def test_a_model_that_is_swapped_while_it_encodes_the_query_does_not_answer(zoo: Zoo) -> None:
    """Each call gets another encoder."""
    search = zoo.search(verifier=zoo.mocked_verifier(side_effect=lambda version: HashingEncoder(version.spec)))
    with pytest.raises(errors.SpaceRefused, match="replaced"):
        await search.run(NAME, SearchRequest(text="animal", mode="dense"))
    answer = await search.run(NAME, SearchRequest(text="animal"))
    assert [(one.stage, one.code) for one in answer.degraded] == [("embed", "SpaceRefused")]


class Indexed(FakeVersions):
    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        return replace(await super().status(version), indexed=True)


@pytest.mark.parametrize("where", [None, filters.parse({"wheels": False})])
async def test_an_index_that_brings_too_little_is_not_the_last_word(zoo: Zoo, where: filters.Filter | None) -> None:
    plans: list[str] = []

    async def finds_next_to_nothing(query: VectorQuery) -> tuple[Candidate, ...]:
        plans.append(query.plan.kind)
        rows = await zoo.vectors.nearest(query)
        return rows if query.plan.kind == "exact" else rows[:1]

    vectors = zoo.mocked_vectors(finds_next_to_nothing)
    search = zoo.search(vectors=vectors, versions=Indexed(zoo.collections), passing_cap=1)
    answer = await search.run(NAME, SearchRequest(text="animal", mode="dense", k=3, where=where))
    assert (plans, len(answer.hits), answer.dense.kind) == (["hnsw", "exact"], 3, "exact")


async def test_the_index_is_searched_as_deep_as_the_answer_needs_and_says_so(zoo: Zoo) -> None:
    search = zoo.search(versions=Indexed(zoo.collections))
    for wanted, used in ((None, DEFAULT_EF_SEARCH), (300, 300)):
        request = SearchRequest(text="animal", mode="dense", k=3, candidates=5, ef_search=wanted)
        plan = (await search.run(NAME, request)).dense
        assert (plan.kind, plan.ef_search) == ("hnsw", used)


async def never(*_: object) -> tuple[Candidate, ...]:
    await asyncio.sleep(30)
    raise AssertionError("never cancelled")


async def test_a_leg_that_outlasts_the_budget_is_left_out_visibly(zoo: Zoo) -> None:
    search = zoo.search(lexicon=zoo.mocked_lexicon(side_effect=never))
    answer = await search.run(NAME, SearchRequest(text="animal", budget_ms=100))
    assert [(one.stage, one.code) for one in answer.degraded] == [("lexical", "budget")]
    assert answer.hits[0].highlights, "what is already found is still shown in full"


async def test_a_budget_that_nothing_can_keep_still_gets_an_answer(zoo: Zoo) -> None:
    async def slow(*query: Any) -> tuple[Candidate, ...]:
        await asyncio.sleep(0.02)
        return await zoo.lexicon.search(*query)

    search = zoo.search(lexicon=zoo.mocked_lexicon(side_effect=slow))
    answer = await search.run(NAME, SearchRequest(text="animal", budget_ms=1e-9))
    assert answer.hits
    assert {one.code for one in answer.degraded} == {"budget"}


@pytest.mark.parametrize("part", ["match_filter", "filter_ids"])
@pytest.mark.parametrize("mode", ["dense", "lexical"])
async def test_a_filter_ends_with_the_budget(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, mode: Mode, part: str) -> None:
    """And a moment that it is given beyond it; then neither leg can answer."""
    monkeypatch.setattr(context_module, "FILTER_GRACE_SECONDS", 0.1)
    if (mode, part) == ("dense", "filter_ids"):
        vectors: Any = SimpleNamespace(nearest=never)
        search = zoo.search(vectors=vectors)
    else:
        setattr(zoo.documents, part, never)
        search = zoo.search()
    if part == "filter_ids":
        zoo.documents.match_filter = too_many  # type: ignore[method-assign,assignment]
    where = filters.parse({"legs": {"$nin": list(range(10, 500))}})
    with pytest.raises(errors.TimedOut, match="within the budget of 50 ms: declare its fields"):
        await search.run(NAME, SearchRequest(text="animal", mode=mode, where=where, budget_ms=50))


async def too_many(*_: object) -> FilterMatch:
    return FilterMatch(ids=None, count=3, total=4)


async def test_listing_what_passes_takes_half_of_the_budget(zoo: Zoo) -> None:
    limits: list[float | None] = []
    plain = zoo.documents.match_filter

    async def recorded(*arguments: Any) -> FilterMatch:
        limits.append(arguments[3])
        return await plain(*arguments)

    zoo.documents.match_filter = recorded  # type: ignore[method-assign,assignment]
    for budget in (None, 60_000, 10):
        await zoo.search().run(NAME, SearchRequest(text="animal", where=filters.parse({"legs": 4}), budget_ms=budget))
    assert limits[0] is None
    assert limits[1:] == [pytest.approx(30, abs=5), context_module.FILTER_GRACE_SECONDS]


async def test_a_query_that_the_embedder_cannot_read_to_its_end_says_so(zoo: Zoo) -> None:
    most = (await zoo.verifier.ensure(await zoo.version())).identity.max_tokens
    fits = await zoo.search().run(NAME, SearchRequest(text="animal " * (most - 5)))
    assert not fits.degraded
    cut = await zoo.search().run(NAME, SearchRequest(text="animal " * (most + 5)))
    assert [(one.stage, one.code) for one in cut.degraded] == [("embed", "query_truncated")]
    assert cut.hits[0].explanation.dense is not None, "the dense leg answers all the same"


async def test_too_many_at_once_are_turned_away_at_once(zoo: Zoo) -> None:
    search = zoo.search(lexicon=zoo.mocked_lexicon(side_effect=never), max_concurrent=1)
    first = asyncio.create_task(search.run(NAME, SearchRequest(text="animal")))
    await asyncio.sleep(0)
    with pytest.raises(errors.Overloaded):
        await search.run(NAME, SearchRequest(text="animal"))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await search.run(NAME, SearchRequest(text="animal", mode="dense"))


async def test_a_version_that_does_not_exist(zoo: Zoo) -> None:
    with pytest.raises(errors.VersionNotFound):
        await zoo.search().run(NAME, SearchRequest(text="animal", embedder_version=VersionNumber(7)))


async def test_vectors_on_request(zoo: Zoo) -> None:
    answer = await zoo.search().run(NAME, SearchRequest(text="milk", k=1, include=frozenset({"vector"})))
    assert (len(answer.hits[0].vector or ()), answer.hits[0].highlights) == (256, ())


async def test_a_filter_that_nothing_passes(zoo: Zoo) -> None:
    answer = await zoo.search().run(NAME, SearchRequest(text="animal", where=filters.parse({"wheels": 4})))
    assert (answer.hits, answer.dense.underfilled) == ((), False)
    assert FilterMatch(ids=(), count=0, total=0).selectivity == 0.0


async def test_a_changed_document_is_found_by_its_new_words_before_it_is_encoded_again(zoo: Zoo) -> None:
    await zoo.write({"cat": "The lynx prowls by night."}, encode=False)
    answer = await zoo.search().run(NAME, SearchRequest(text="lynx prowls night", k=5, include=frozenset({"vector"})))
    (cat,) = [hit for hit in answer.hits if hit.id == "cat"]
    assert (cat.vector, cat.text) == (None, "The lynx prowls by night.")
    assert cat.explanation.lexical is not None
    assert cat.explanation.dense is None  # the vector that there is speaks of another text


async def test_an_observer_that_fails_does_not_fail_the_answer(zoo: Zoo) -> None:
    failing, following = Mock(), Mock()
    failing.on_search.side_effect = ValueError("a fault")
    search = zoo.search()
    search.observers = (failing, following)
    assert (await search.run(NAME, SearchRequest(text="purrs"))).hits
    following.on_search.assert_called_once()


async def test_an_answer_says_that_its_lexical_index_is_far_behind(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeLexicon, "lag_seconds", lambda *_: 95.0)
    searches: list[tuple[SearchRequest, list[str]]] = [
        (SearchRequest(text="purrs"), ["lexical"]),
        (SearchRequest(text="purrs", mode="dense"), []),
    ]
    for request, expected in searches:
        answer = await zoo.search().run(NAME, request)
        assert [one.stage for one in answer.degraded] == expected
        assert all("95 s" in one.reason for one in answer.degraded)


async def test_a_lexical_index_that_lags_does_not_lend_its_old_scores(zoo: Zoo) -> None:
    old = await zoo.lexicon.search(zoo.animals, ParsedQuery(text="purrs"), 1)
    await zoo.write({"cat": "The lynx prowls by night."})
    lagging = zoo.mocked_lexicon(return_value=old)
    answer = await zoo.search(lexicon=lagging).run(NAME, SearchRequest(text="purrs", k=5))
    (cat,) = [hit for hit in answer.hits if hit.id == "cat"]
    assert cat.text == "The lynx prowls by night."
    assert cat.explanation.dense is not None
    assert cat.explanation.lexical is None


async def test_an_answer_left_short_by_what_changed_says_so(zoo: Zoo) -> None:
    await zoo.write({name: f"{text} Once more." for name, text in TEXTS.items() if name != "dog"}, encode=False)
    for k, underfilled in ((3, True), (1, False)):
        answer = await zoo.search().run(NAME, SearchRequest(text="an animal", mode="dense", k=k))
        assert ([hit.id for hit in answer.hits], answer.dense.underfilled) == (["dog"], underfilled)


async def test_a_collection_made_anew_by_another_process_is_found_at_once(zoo: Zoo) -> None:
    search = zoo.search()
    await search.run(NAME, SearchRequest(text="cat"))
    await zoo.collections.delete(zoo.animals.id)
    with pytest.raises(errors.CollectionNotFound):
        await search.run(NAME, SearchRequest(text="cat"))
    await zoo.open()
    await zoo.write(TEXTS)
    assert (await search.run(NAME, SearchRequest(text="cat"))).hits
    # The next one finds in memory what is there no more.
    await zoo.collections.delete(zoo.animals.id)
    await zoo.open()
    await zoo.write({"cat": TEXTS["cat"]})
    assert [hit.id for hit in (await search.run(NAME, SearchRequest(text="cat"))).hits] == ["cat"]


def put_version(zoo: Zoo, version: EmbedderVersion) -> None:
    """Beside or in place of what is there."""
    versions = zoo.collections.versions[zoo.animals.id]
    versions[:] = [*(one for one in versions if one.number != version.number), version]


async def test_a_vector_of_the_client_answers_as_the_text_that_it_is_of_without_a_model(zoo: Zoo) -> None:
    text = "a small animal that purrs"
    (vector,) = await zoo.registry.embed((await zoo.version()).spec, [text], "query")
    by_text = await zoo.search().run(NAME, SearchRequest(text=text, mode="dense"))
    brought = SearchRequest(mode="dense", vector=tuple((vector * 7).tolist()), embedder_version=VersionNumber(1))
    by_vector = await zoo.search(embedders=None).run(NAME, brought)
    assert [hit.id for hit in by_vector.hits] == [hit.id for hit in by_text.hits]
    assert [hit.score for hit in by_vector.hits] == pytest.approx([hit.score for hit in by_text.hits], abs=1e-6)
    assert not by_vector.degraded


@pytest.mark.parametrize(
    ("number", "vector", "field"),
    [
        (None, (1.0,) * 256, "embedder_version"),
        (VersionNumber(1), (1.0,) * 255, "vector"),
        (VersionNumber(1), (0.0,) * 256, "vector"),
        (VersionNumber(1), (float("nan"),) * 256, "vector"),
        (VersionNumber(1), (*(1.0,) * 255, float("inf")), "vector"),
    ],
)
async def test_a_vector_that_is_none_of_the_space_or_does_not_say_so_is_refused(
    zoo: Zoo, number: VersionNumber | None, vector: tuple[float, ...], field: str
) -> None:
    for text in ("", "animal"):
        request = SearchRequest(text=text, mode="hybrid" if text else "dense", vector=vector, embedder_version=number)
        with pytest.raises(errors.Invalid) as refused:
            await zoo.search().run(NAME, request)
        assert [error.field for error in refused.value.errors] == [field]


async def test_a_version_that_is_being_filled_answers_with_what_it_has_and_says_so(zoo: Zoo) -> None:
    """Also where its leg is asked a second time, because what it found was stale."""
    second = replace(await zoo.version(), number=VersionNumber(2), state=VersionState.BACKFILLING)
    put_version(zoo, second)
    request = SearchRequest(text="an animal", k=2, candidates=2, embedder_version=VersionNumber(2))
    nothing = await zoo.search().run(NAME, request)
    assert [(one.stage, one.code) for one in nothing.degraded] == [("dense", "incomplete")]
    assert nothing.dense.kind == "exact"

    first_space, space = zoo.store.space(await zoo.version()), zoo.store.space(second)
    for key, row in first_space.items():
        stale = key[0] in ("cat", "dog")
        space[key] = replace(row, content_revision=row.content_revision - 1) if stale else row
    answer = await zoo.search().run(NAME, replace(request, mode="dense"))
    assert "cow" in [hit.id for hit in answer.hits]
    assert [(one.stage, one.code) for one in answer.degraded] == [("dense", "incomplete")]
    assert all(hit.explanation.dense is not None for hit in answer.hits), "the leg ran, however often"
    assert not (await zoo.search().run(NAME, replace(request, mode="lexical"))).degraded


@pytest.mark.parametrize("state", [VersionState.FAILED, VersionState.RETIRED])
async def test_a_version_that_is_no_more_answers_nothing(zoo: Zoo, state: VersionState) -> None:
    put_version(zoo, replace(await zoo.version(), number=VersionNumber(2), state=state))
    for mode in ("dense", "lexical", "hybrid"):
        with pytest.raises(errors.Conflict, match=state.value):
            await zoo.search().run(NAME, SearchRequest(text="animal", mode=mode, embedder_version=VersionNumber(2)))


async def test_without_its_vector_an_external_version_answers_by_words(zoo: Zoo) -> None:
    spec = EmbedderSpec(model=EXTERNAL, dimensions=256, identity="theirs")
    put_version(zoo, replace(await zoo.version(), spec=spec, canary={}))
    answer = await zoo.search().run(NAME, SearchRequest(text="animal"))
    assert answer.hits
    assert [(one.stage, one.code) for one in answer.degraded] == [("dense", "no_vector")]
    with pytest.raises(errors.Invalid, match="send the query's"):
        await zoo.search().run(NAME, SearchRequest(text="animal", mode="dense"))
    with pytest.raises(errors.Unavailable):
        await zoo.search(lexicon=zoo.lost_lexicon()).run(NAME, SearchRequest(text="animal"))
    both = await zoo.search().run(NAME, SearchRequest(text="animal", vector=(1.0,) * 256))
    assert not both.degraded
    assert all(hit.explanation.dense is not None for hit in both.hits)


@pytest.mark.parametrize(
    ("request_", "mentions"),
    [
        (SearchRequest(text="purrs", min_revision=1), None),
        (SearchRequest(text="purrs", min_revision=2**60), "does not have the revision"),
        (SearchRequest(text="purrs", min_revision=1, budget_ms=100), "yet"),
        (SearchRequest(text="purrs", min_revision=2**60, mode="dense"), None),
    ],
)
async def test_a_search_waits_for_its_revision_or_says_that_it_is_behind(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, request_: SearchRequest, mentions: str | None
) -> None:
    if request_.budget_ms:
        monkeypatch.setattr(FakeLexicon, "included", lambda *_: (Position(), NOTHING_SEEN))
        monkeypatch.setattr(FakeLexicon, "wait_until", lambda *_: asyncio.sleep(60))
    answer = await zoo.search().run(NAME, request_)
    assert [one.code for one in answer.degraded] == ([] if mentions is None else ["behind"])
    assert all(str(mentions) in one.reason for one in answer.degraded)
    assert answer.hits
