"""The checks that search, over fakes: a worse version is refused in any measure and an equal one in none."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from service.core.collections import EXTERNAL, CollectionSettings, EmbedderSpec
from service.core.documents import Document
from service.core.errors import DatabaseUnavailable, LexiconUnavailable, Overloaded, SpaceRefused, Unavailable
from service.core.ids import DocumentId, Role, Vector, Vectors, VersionNumber
from service.core.ports.vectors import VectorQuery
from service.core.search import Candidate, SearchRequest
from service.core.versions import EmbedderVersion, PromotionCheck
from service.embedder.models.registry import ModelRegistry
from service.evaluation import evaluator
from service.search.filter_planner import DEFAULT_EF_SEARCH
from service.search.pipeline import SearchPipeline
from service.spaces import sampling
from service.spaces.model_verification import ModelVerifier
from service.spaces.sampling import CollectionSampler
from service.versions import judgment_check, search_checks
from service.versions.search_checks import SearchChecks
from service.versions.shadow_traffic import ShadowTraffic
from tests.fakes import FakeLexicon
from tests.rivals import BAD, DOCUMENTS, GOOD, GRADES, NAME, NOW, OTHER, QUERIES, Rivals, ScannedVectors

pytestmark = pytest.mark.slow

CHANCE = np.random.default_rng(8)
THEIRS = EmbedderSpec(model=EXTERNAL, dimensions=16, identity="theirs")
FEW = dict(list(GRADES.items())[: judgment_check.MIN_QUERIES - 1])
"""Judgments that are one too few to decide."""


async def examine(
    rivals: Rivals,
    version: EmbedderVersion,
    *,
    shadow: ShadowTraffic | None = None,
    search: SearchPipeline | None = None,
    vectors: ScannedVectors | None = None,
    embedders: ModelRegistry | None = None,
    verifier: ModelVerifier | None = None,
) -> Mapping[str, PromotionCheck]:
    vectors, verifier = vectors or rivals.vectors, verifier or rivals.verifier
    sampler = CollectionSampler(
        vectors=vectors, documents=rivals.documents, embedders=embedders or rivals.registry, verifier=verifier
    )
    checks = SearchChecks(
        search=search or rivals.search(),
        versions=rivals.versions,
        vectors=vectors,
        test_sets=rivals.test_sets,
        verifier=verifier,
        sampling=sampler,
        shadow=shadow or rivals.shadow(share=0.0),
    )
    made = await checks.measure(await rivals.collection(), version)
    assert [check.name for check in made] == ["recall", "geometry", "judgments", "shadow"]
    return {check.name: check for check in made}


def noise(dimensions: int) -> Vectors:
    return CHANCE.normal(size=(len(DOCUMENTS), dimensions)).astype(np.float32)


@pytest.fixture
async def candidate(rivals: Rivals) -> EmbedderVersion:
    """A worse version, and judgments that say so."""
    rivals.judge()
    return await rivals.add(BAD)


async def test_a_worse_version_is_refused_with_the_interval(rivals: Rivals, candidate: EmbedderVersion) -> None:
    check = (await examine(rivals, candidate))["judgments"]
    assert check.passed is False
    found = check.figures["dense"]["nDCG@10"]
    assert found["low"] < found["difference"] < found["high"] < 0
    assert found["difference"] == pytest.approx(found["new"] - found["old"], abs=2e-4)
    assert found["old"] > 0.9
    assert check.figures["queries"] == len(QUERIES)
    number = r"0\.\d{4}"
    difference = rf"nDCG@10 dense {number} -> {number}, difference -{number} \[-{number}, -{number}\]"
    assert re.fullmatch(f"{difference} over 30 queries: worse beyond the noise", check.detail.split(";")[0])


async def test_a_version_that_is_worse_in_one_measure_is_refused(rivals: Rivals) -> None:
    """The lexical leg repairs the first ten of a hybrid answer, but not the dense mode."""
    rivals.judge()
    check = (await examine(rivals, await rivals.add(EmbedderSpec(model="hashing:40"))))["judgments"]
    found = {(mode, name): figures for mode in ("dense", "hybrid") for name, figures in check.figures[mode].items()}
    worse = {key for key, figures in found.items() if figures["high"] < 0}
    assert check.passed is False
    assert ("dense", "nDCG@10") in worse
    assert len(worse) < 4
    assert check.detail.count("worse beyond the noise") == len(worse)


async def test_the_same_embedder_passes_without_any_difference(rivals: Rivals) -> None:
    rivals.judge()
    check = (await examine(rivals, await rivals.add(GOOD)))["judgments"]
    assert check.passed is True
    for found in (*check.figures["dense"].values(), *check.figures["hybrid"].values()):
        assert (found["difference"], found["low"], found["high"]) == (0, 0, 0)
    assert check.detail.endswith("no difference beyond the noise")


@pytest.mark.slow
async def test_a_difference_within_the_noise_passes(rivals: Rivals) -> None:
    rivals.judge()
    found = [
        (await examine(rivals, await rivals.add(EmbedderSpec(model=f"hashing:{dimensions}"))))["judgments"]
        for dimensions in (249, 250, 251)
    ]
    assert all(check.passed for check in found)
    assert any(check.figures["dense"]["nDCG@10"]["difference"] for check in found)


async def test_a_better_version_passes() -> None:
    rivals = Rivals()
    await rivals.create(BAD)
    rivals.judge()
    check = (await examine(rivals, await rivals.add(GOOD)))["judgments"]
    assert check.passed is True
    assert "better beyond the noise" in check.detail
    assert check.figures["dense"]["nDCG@10"]["low"] > 0


async def test_without_judgments_or_a_comparison_nothing_is_decided(rivals: Rivals) -> None:
    candidate = await rivals.add(BAD)
    assert (await examine(rivals, candidate))["judgments"].passed is None
    rivals.judge()
    assert (await examine(rivals, await rivals.active()))["judgments"].passed is None
    theirs = await rivals.add(THEIRS, vectors=noise(16))
    assert "client" in (await examine(rivals, theirs))["judgments"].detail
    rivals.judge(grades={"q00-0": {"s00-0": 0}, "unknown query": {"s00-0": 1}})
    assert (await examine(rivals, candidate))["judgments"].passed is None


async def test_few_queries_decide_nothing(rivals: Rivals, candidate: EmbedderVersion) -> None:
    rivals.judge(grades=FEW)
    few = (await examine(rivals, candidate))["judgments"]
    assert few.passed is None
    assert few.figures["dense"]["nDCG@10"]["difference"] < 0, "it is reported all the same"
    rivals.judge(grades=dict(list(GRADES.items())[: judgment_check.MIN_QUERIES]))
    assert (await examine(rivals, candidate))["judgments"].passed is False


async def test_missing_judged_documents_are_counted(rivals: Rivals, candidate: EmbedderVersion) -> None:
    await rivals.documents.delete(candidate.collection_id, [DocumentId("s00-0"), DocumentId("s01-0")], NOW)
    figures = (await examine(rivals, candidate))["judgments"].figures
    assert (figures["relevant_documents"], figures["relevant_documents_missing"]) == (len(DOCUMENTS), 2)
    rivals.judge(grades={query: {"elsewhere": 1} for query in GRADES})
    nowhere = (await examine(rivals, candidate))["judgments"]
    assert nowhere.passed is None
    assert "no document that was judged relevant is in the collection" in nowhere.detail


async def test_queries_without_documents_are_left_out(rivals: Rivals, candidate: EmbedderVersion) -> None:
    rivals.judge(grades={query: FEW.get(query, {"elsewhere": 1}) for query in GRADES})
    few = (await examine(rivals, candidate))["judgments"]
    assert few.passed is None, "all others are found by neither version, which looks like agreement"
    counts = (few.figures["queries"], few.figures["queries_without_documents"])
    assert counts == (len(FEW), len(GRADES) - len(FEW))


async def test_of_many_queries_a_fixed_sample_is_used(
    rivals: Rivals, candidate: EmbedderVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgment_check, "MAX_QUERIES", 15)
    first, second = [(await examine(rivals, candidate))["judgments"] for _ in range(2)]
    assert first == second
    assert first.figures["queries"] == 15


async def test_a_refused_active_version_decides_nothing(rivals: Rivals, candidate: EmbedderVersion) -> None:
    verifier = rivals.refusing(VersionNumber(1))
    check = (await examine(rivals, candidate, search=rivals.search(verifier=verifier), verifier=verifier))["judgments"]
    assert check.passed is None
    assert re.search("cannot be searched.*the weights differ", check.detail)


async def test_incomplete_answers_are_no_evidence(rivals: Rivals, candidate: EmbedderVersion) -> None:
    lexicon = FakeLexicon(rivals.store)
    unavailable = mock.patch.object(lexicon, "search", side_effect=LexiconUnavailable("being rebuilt"))
    with unavailable, pytest.raises(Unavailable, match="being rebuilt"):
        await examine(rivals, candidate, search=rivals.search(lexicon=lexicon))
    with pytest.raises(Unavailable) as raised:
        await examine(rivals, candidate, search=rivals.search(verifier=rivals.refusing(candidate.number)))
    assert not isinstance(raised.value, SpaceRefused), "that would fail the version for good"


class Busy(ModelRegistry):
    """Is overloaded at every other call."""

    calls = 0

    async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        self.calls += 1
        if self.calls % 2:
            raise Overloaded(retry_after=0.0)
        return await super().embed(spec, texts, role)


async def test_searches_of_a_busy_service_are_repeated(
    rivals: Rivals, candidate: EmbedderVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "BUSY_SECONDS", 0.0)
    expected = (await examine(rivals, candidate))["judgments"]
    busy = Busy(default=GOOD.model)
    check = (await examine(rivals, candidate, search=rivals.search(embedders=busy)))["judgments"]
    assert check == expected
    assert busy.calls > 200


async def test_repetition_ends() -> None:
    ask = mock.AsyncMock(side_effect=Overloaded(retry_after=0.0))
    with pytest.raises(Overloaded):
        await sampling.retry_overloaded(ask)
    assert ask.await_count == sampling.OVERLOAD_RETRIES + 1


async def test_database_errors_are_raised(rivals: Rivals, candidate: EmbedderVersion) -> None:
    unavailable = mock.patch.object(rivals.vectors, "nearest", side_effect=DatabaseUnavailable)
    with unavailable, pytest.raises(DatabaseUnavailable):
        await examine(rivals, candidate)


class Index(ScannedVectors):
    """An approximate index that misses the ranks in `loses`, and records how it was searched."""

    def __init__(self, rivals: Rivals, loses: Sequence[int] = ()) -> None:
        super().__init__(rivals.store)
        self.loses = loses
        self.searched: list[tuple[str, int | None, int]] = []
        self.queries: list[Vector] = []

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        self.searched.append((query.plan.kind, query.plan.ef_search, query.limit))
        rows = await super().nearest(query)
        if query.plan.kind == "exact":
            self.queries.append(query.vector)
            return rows
        return tuple(row for rank, row in enumerate(rows) if rank not in self.loses)


async def indexed(rivals: Rivals, spec: EmbedderSpec = OTHER, vectors: Vectors | None = None) -> EmbedderVersion:
    version = await rivals.add(spec, vectors=vectors)
    await rivals.set_status(version, indexed=True)
    return version


async def test_an_exact_scan_loses_nothing(rivals: Rivals) -> None:
    check = (await examine(rivals, await rivals.add(OTHER)))["recall"]
    assert check.passed is True
    assert check.figures["recall_at_10"] == 1.0
    assert "exactly" in check.detail


async def test_an_index_is_measured_as_it_is_searched(rivals: Rivals) -> None:
    rivals.judge(queries={f"q{number}": f"query {number}" for number in range(60)}, grades={})
    version, index = await indexed(rivals), Index(rivals)
    check = (await examine(rivals, version, vectors=index))["recall"]
    assert check.passed is True
    assert (check.figures["recall_at_10"], check.figures["low"], check.figures["queries"]) == (1.0, 1.0, 60)
    # As the dense leg of a request with defaults: 100 candidates, one chunk for each document.
    assert set(index.searched) == {("exact", None, 10), ("hnsw", DEFAULT_EF_SEARCH, CollectionSettings().candidates)}


@pytest.mark.slow
async def test_an_index_below_the_recall_target_fails(rivals: Rivals) -> None:
    rivals.judge()
    version = await indexed(rivals)
    check = (await examine(rivals, version, vectors=Index(rivals, loses=[4])))["recall"]
    assert check.passed is False
    assert check.figures["recall_at_10"] == pytest.approx(0.9, abs=0.03)
    assert check.figures["low"] <= check.figures["recall_at_10"] <= check.figures["high"]
    assert check.figures["ef_search"] == DEFAULT_EF_SEARCH
    assert "below the target 0.95" in check.detail
    collection = await rivals.collection()
    settings = replace(collection.settings, recall_target=0.8)
    rivals.collections.rows[collection.id] = replace(collection, settings=settings)
    assert (await examine(rivals, version, vectors=Index(rivals, loses=[4])))["recall"].passed is True


async def test_ties_are_no_loss() -> None:
    rivals = Rivals()
    await rivals.create(texts={f"twin{number:02}": "the very same words" for number in range(40)})
    version = await indexed(rivals)
    check = (await examine(rivals, version, vectors=Index(rivals, loses=range(10))))["recall"]
    assert check.passed is True
    assert (check.figures["recall_at_10"], check.figures["recall_at_10_by_id"]) == (1.0, 0.0)


@pytest.mark.slow
async def test_queries_come_from_judgments_then_from_clients_then_from_documents(rivals: Rivals) -> None:
    version, shadow = await indexed(rivals), rivals.shadow(share=0.0)

    async def sources() -> dict[str, int]:
        figures = (await examine(rivals, version, shadow=shadow))["recall"].figures
        assert figures["queries"] == sum(figures["sources"].values())
        found: dict[str, int] = figures["sources"]
        return found

    assert await sources() == {"first sentences": len(DOCUMENTS)}
    for number in range(sampling.MIN_QUERIES):
        shadow.add(NAME, SearchRequest(text=f"a live query {number}"))
    assert await sources() == {"live queries": sampling.MIN_QUERIES}
    rivals.judge()
    assert await sources() == {"judged queries": len(QUERIES), "live queries": sampling.MIN_QUERIES}
    rivals.judge(queries={f"q{number}": f"query {number}" for number in range(1000)}, grades={})
    assert await sources() == {"judged queries": search_checks.RECALL_QUERIES}


async def test_first_sentences_of_documents_are_queries(rivals: Rivals) -> None:
    asked: list[str] = []

    class Listening(ModelRegistry):
        async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
            asked.extend(texts)
            assert role == "query"
            return await super().embed(spec, texts, role)

    await examine(rivals, await indexed(rivals), embedders=Listening(default=GOOD.model))
    assert sorted(asked) == sorted(text.removesuffix(" And more.") for text in DOCUMENTS.values())


async def test_disturbed_client_vectors_are_queries(rivals: Rivals) -> None:
    rows, index = noise(16), Index(rivals)
    check = (await examine(rivals, await indexed(rivals, THEIRS, rows), vectors=index))["recall"]
    assert check.passed is True
    assert check.figures["sources"] == {"disturbed vectors": len(DOCUMENTS)}
    stored = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = (np.stack(index.queries) @ stored.T).max(axis=1)
    assert np.linalg.norm(index.queries, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert nearest.max() < 0.999, "the stored vectors themselves are not queries"
    assert nearest.mean() > 0.85


async def test_the_measurement_of_recall_has_a_deadline(rivals: Rivals, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals.judge()
    monkeypatch.setattr(search_checks, "RECALL_SECONDS", -1.0)
    assert (await examine(rivals, await indexed(rivals)))["recall"].figures["queries"] == 1


async def test_nothing_is_measured_with_a_refused_model(rivals: Rivals) -> None:
    version = await indexed(rivals)
    with pytest.raises(SpaceRefused):
        await examine(rivals, version, verifier=rivals.refusing(version.number))


async def test_a_collapsed_space_is_found(rivals: Rivals) -> None:
    check = (await examine(rivals, await rivals.add(BAD, vectors=1 + 0.01 * noise(8))))["geometry"]
    assert check.passed is False
    assert "mean cosine" in check.detail
    assert check.figures["mean_cosine"] > 0.99
    assert check.figures["active"]["mean_cosine"] < 0.5


async def test_a_spread_out_space_passes_with_figures_of_the_active_one(rivals: Rivals) -> None:
    check = (await examine(rivals, await rivals.add(OTHER)))["geometry"]
    assert check.passed is True
    assert (check.figures["rows"], check.figures["dimensions"]) == (len(DOCUMENTS), 250)
    assert check.figures["active"]["dimensions"] == 256
    assert "active" not in (await examine(rivals, await rivals.active()))["geometry"].figures


async def test_equal_documents_are_no_sign_of_collapse(rivals: Rivals) -> None:
    collection = await rivals.collection()
    copies = [Document(id=DocumentId(f"copy-{id_}"), text=text) for id_, text in DOCUMENTS.items()]
    await rivals.documents.put(collection.id, copies, NOW)
    version = await rivals.add(OTHER)
    assert (await examine(rivals, version))["geometry"].figures["duplicates"] == 0.0
    await rivals.documents.put(collection.id, [replace(copy, title="another title") for copy in copies], NOW)
    check = (await examine(rivals, version))["geometry"]
    assert check.figures["duplicates"] == 1.0, "different contents by now, with the same vectors still"
    assert check.passed is False


async def test_few_vectors_decide_nothing() -> None:
    rivals = Rivals()
    await rivals.create(texts={f"twin{number}": f"the very same words {number}" for number in range(20)})
    check = (await examine(rivals, await rivals.add(GOOD)))["geometry"]
    assert check.passed is None
    assert "too few" in check.detail


async def test_live_searches_are_compared_for_information(rivals: Rivals) -> None:
    candidate, shadow = await rivals.add(BAD), rivals.shadow(share=0.0)
    assert (await examine(rivals, candidate, shadow=shadow))["shadow"].figures == {}
    for text in QUERIES.values():
        shadow.add(NAME, SearchRequest(text=text, mode="dense"))
    check = (await examine(rivals, candidate, shadow=shadow))["shadow"]
    assert check.passed is None
    assert check.figures["queries"] == len(QUERIES)
    assert 0 < check.figures["overlap_at_10"] < 0.8
    assert {"kendall_tau", "old_p50_ms", "old_p95_ms", "new_p50_ms", "new_p95_ms"} <= check.figures.keys()
    assert re.match(r"of the first 10 hits of 30 live searches both versions share \d+%, Kendall tau ", check.detail)


async def test_failed_searches_of_the_candidate_are_counted(rivals: Rivals) -> None:
    candidate = await rivals.add(OTHER)
    shadow = rivals.shadow(share=0.0, search=rivals.search(verifier=rivals.refusing(candidate.number)))
    shadow.add(NAME, SearchRequest(text="a word"))
    check = (await examine(rivals, candidate, shadow=shadow))["shadow"]
    assert check.detail == "1 live searches it could not answer in full"
    assert check.figures == {"queries": 0, "errors": 1}
