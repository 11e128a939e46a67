"""Confidence: learnt from a collection's own texts and foreign ones, applied to searches, silent where it must be."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from service.confidence import calibrate, synthetic_queries
from service.confidence.calibrate import ConfidenceCalibrator
from service.core.errors import LexiconUnavailable
from service.core.ids import CollectionId, VersionNumber
from service.core.text import meaningful_sentences
from service.core.versions import AuditEntry, Calibration, EmbedderVersion, Judgments, Mark, SpaceStatus, mark_id
from service.search import confidence
from tests.edge import Edge, edge
from tests.fakes import FakeLexicon, FakeTestSets

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARTS = ("valve", "gasket", "manifold", "actuator", "flange", "impeller", "solenoid", "bearing", "coupling", "spindle")
ACTS = ("replace", "inspect", "lubricate", "torque", "align", "calibrate", "drain", "purge", "seal", "mount")
PLACES = ("housing", "casing", "shaft", "bracket", "sleeve", "rotor", "stator", "plenum", "sump", "duct")


def manual(number: int) -> dict[str, Any]:
    """A page of a maintenance manual: nothing that the foreign texts speak of."""
    chance = random.Random(number)
    sentences = [
        f"{chance.choice(ACTS)} the {chance.choice(PARTS)} of {chance.choice(PARTS)} unit {chance.randint(1, 40)} "
        f"before you {chance.choice(ACTS)} its {chance.choice(PLACES)} and {chance.choice(PLACES)}."
        for _ in range(4)
    ]
    return {"id": f"page-{number}", "title": f"Section {number}", "text": " ".join(sentences)}


def no_confidence(reason: str | None) -> dict[str, Any]:
    return {"in_domain": None, "interval": None, "withheld": False, "reason": reason}


class Scene:
    """A collection of manual pages, with everything encoded, and what learns from it."""

    def __init__(self, here: Edge) -> None:
        self.edge, service = here, here.service
        self.sets, self.lexicon = service.test_sets, service.lexicon
        assert isinstance(self.sets, FakeTestSets)
        assert isinstance(self.lexicon, FakeLexicon)
        self.calibrator = ConfidenceCalibrator(
            collections=service.collections,
            versions=service.versions,
            queue=service.queue,
            vectors=here.vectors,
            lexicon=service.lexicon,
            test_sets=service.test_sets,
            sampling=service.evaluator.sampling,
        )

    async def fill(self, pages: int) -> None:
        await self.edge.fill([manual(number) for number in range(pages)])
        self.rows(pages)

    def rows(self, rows: int) -> None:
        """As many chunks as the status tells."""
        status = SpaceStatus(rows=rows, indexed=False, chunks_per_document=1.0)
        self.edge.store.versions.statuses[CollectionId(1), VersionNumber(1)] = status

    async def calibrate(self, now: datetime = NOW) -> Calibration | None:
        await self.calibrator.calibrate_due(lambda: now)
        self.edge.service.search.forget()
        return (await self.version()).calibration

    async def calibration(self, now: datetime = NOW) -> Calibration:
        """One that there must be."""
        calibration = await self.calibrate(now)
        assert calibration is not None
        return calibration

    async def version(self) -> EmbedderVersion:
        return await self.edge.service.versions.get(CollectionId(1), VersionNumber(1))

    async def confidence(self, query: str, **request: Any) -> Any:
        return (await self.edge.search(query, **request))["confidence"]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with edge() as here:
        await here.collection(embedder="hashing:256")
        scene = Scene(here)
        await scene.fill(60)
        yield scene


OWN = "align the impeller of a bearing unit before I drain its sump and casing"
FOREIGN = "Who wrote the letters to the Corinthians?"


async def test_own_queries_are_separated_from_foreign_ones(scene: Scene) -> None:
    assert (await scene.confidence(OWN)) == no_confidence("not calibrated yet")
    learnt = await scene.calibration()
    assert learnt.reason is None
    assert (learnt.auroc or 0.0) > 0.95
    assert learnt.error is not None
    assert learnt.error < 0.1
    own, foreign = await scene.confidence(OWN), await scene.confidence(FOREIGN)
    assert own["in_domain"] > 0.8
    assert foreign["in_domain"] < 0.2
    assert own["reason"] is foreign["reason"] is None


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
async def test_hits_are_withheld_below_min_confidence_and_not_above(scene: Scene, mode: str) -> None:
    await scene.calibrate()
    refused = await scene.edge.search(FOREIGN, min_confidence=0.5, mode=mode)
    assert refused["hits"] == []
    assert refused["confidence"]["withheld"] is True
    assert "below the min_confidence of 0.5" in refused["confidence"]["reason"]
    assert refused["plan"]["underfilled"] is False
    answered = await scene.edge.search(OWN, min_confidence=0.5, mode=mode)
    assert len(answered["hits"]) == 10
    assert answered["confidence"]["withheld"] is False


async def test_of_several_queries_the_highest_confidence_counts(scene: Scene) -> None:
    await scene.calibrate()
    found = (await scene.edge.client.post("/v1/collections/papers/search", json={"queries": [FOREIGN, OWN]})).json()
    assert found["confidence"]["in_domain"] == (await scene.confidence(OWN))["in_domain"]


async def test_searches_without_scores_have_no_confidence(scene: Scene) -> None:
    await scene.calibrate()
    assert "lexical scores alone" in (await scene.confidence(OWN, mode="lexical"))["reason"]
    assert "found nothing" in (await scene.confidence(OWN, filter={"year": 1}))["reason"]
    like = await scene.edge.client.post("/v1/collections/papers/search", json={"like": {"positive": ["page-1"]}})
    assert like.json()["confidence"] == no_confidence("a search by examples, or by an image, has no query in words")


async def test_a_min_confidence_that_cannot_be_applied_is_reported(scene: Scene) -> None:
    answer = await scene.edge.search(FOREIGN, min_confidence=0.5)
    assert len(answer["hits"]) == 10
    reason = "min_confidence was not applied: not calibrated yet"
    assert answer["degraded"] == [{"stage": "confidence", "code": "untold", "reason": reason}]


@pytest.mark.parametrize("least", [-0.1, 1.5, "0.5", True])
async def test_min_confidence_is_a_probability(scene: Scene, least: Any) -> None:
    answer = await scene.edge.client.post("/v1/collections/papers/search", json={"query": OWN, "min_confidence": least})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "min_confidence"


async def test_without_the_lexical_leg_the_cosine_decides(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.calibrate()
    dense = await scene.confidence(OWN, mode="dense")

    async def lost(*_: Any) -> float:
        raise LexiconUnavailable("being built")

    monkeypatch.setattr(scene.lexicon, "max_score", lost)
    assert (await scene.confidence(OWN))["in_domain"] == dense["in_domain"]


async def test_a_version_shows_its_calibration(scene: Scene) -> None:
    assert (await scene.edge.version(1))["confidence"] is None
    learnt = await scene.calibration()
    shown = (await scene.edge.version(1))["confidence"]
    assert (shown["learnt_at"], shown["chunks"], shown["reason"]) == (NOW.isoformat(), 60, None)
    assert shown["sources"].keys() == {"disturbed sentences", "sentences", "foreign texts"}
    assert shown["expected_calibration_error"] == learnt.error


async def test_it_is_calibrated_again_when_the_collection_changed_by_a_quarter(scene: Scene) -> None:
    first = await scene.calibrate()
    assert await scene.calibrate(NOW + timedelta(hours=1)) == first
    scene.rows(74)
    assert await scene.calibrate(NOW + timedelta(hours=2)) == first
    scene.rows(75)
    again = await scene.calibration(NOW + timedelta(hours=3))
    assert (again.rows, again.learnt_at) == (75, NOW + timedelta(hours=3))


async def test_too_few_chunks_are_not_calibrated(scene: Scene) -> None:
    scene.rows(confidence.MIN_CHUNKS - 1)
    assert await scene.calibrate() is None
    assert (await scene.confidence(OWN))["reason"] == "calibration needs 50 chunks, and there are 49"


async def test_it_waits_while_a_bulk_load_is_under_way(scene: Scene) -> None:
    for number in range(100, 110):
        await scene.edge.client.post("/v1/collections/papers/documents", json={"documents": [manual(number)]})
    assert await scene.calibrate() is None
    await scene.edge.encode()
    assert await scene.calibrate() is not None


async def test_it_waits_for_the_lexical_leg(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.lexicon, "lag_seconds", lambda _: 3.0)
    assert await scene.calibrate() is None
    monkeypatch.setattr(scene.lexicon, "lag_seconds", lambda _: 0.0)
    assert await scene.calibrate() is not None


async def test_while_another_process_calibrates_nothing_is_done(scene: Scene) -> None:
    async with scene.edge.service.versions.calibration_lock(await scene.version()) as ours:
        assert ours
        assert await scene.calibrate() is None


async def test_judged_queries_take_the_place_of_sentences_and_a_new_upload_is_learnt_from(scene: Scene) -> None:
    await scene.calibrate()
    queries = {str(at): f"{act} the {part}" for at, (act, part) in enumerate(product(ACTS, PARTS))}
    grades = {query: {"page-1": 1 if int(query) < 80 else 0} for query in queries}
    judgments = Judgments(queries=queries, grades=grades, uploaded_at=NOW)
    await scene.sets.put(CollectionId(1), judgments, AuditEntry(at=NOW, actor="somebody", action="judgments"))
    learnt = await scene.calibration()
    assert (learnt.judged_at, learnt.sources["judged queries"]) == (NOW, 80)


async def test_a_collection_that_covers_everything_has_no_foreign_queries() -> None:
    async with edge() as here:
        await here.collection(embedder="hashing:256")
        texts = [one.text for one in synthetic_queries.foreign_texts()]
        await here.fill([{"id": f"{at}", "text": text} for at, text in enumerate(texts)])
        scene = Scene(here)
        scene.rows(len(texts))
        learnt = await scene.calibration()
        assert learnt.dense is learnt.both is None
        assert learnt.reason is not None
        assert await scene.confidence(FOREIGN) == no_confidence(learnt.reason)


async def test_scores_that_do_not_separate_say_so() -> None:
    same = [calibrate.TopScores(cosine=0.5 + 0.001 * (at % 7), bm25=0.3) for at in range(150)]
    found = calibrate.fit_calibration(Calibration(rows=150, learnt_at=NOW), same, same, same)
    assert found.dense is None
    assert "AUROC 0.5" in (found.reason or "")


def test_the_foreign_texts_are_many_short_and_of_many_subjects() -> None:
    texts = synthetic_queries.foreign_texts()
    by_subject = Counter(one.subject for one in texts)
    assert len(by_subject) >= 40
    assert min(by_subject.values()) >= 8
    assert len({one.text for one in texts}) == len(texts)
    assert all(2 <= len(one.text.split()) <= 14 for one in texts)


def test_meaningful_sentences() -> None:
    text = "Yes. This one has five words! No?\n\nA heading\nand another one without end"
    assert meaningful_sentences(text) == ["This one has five words!", "and another one without end"]
    assert meaningful_sentences("Too short.") == ["Too short."]
    assert meaningful_sentences("   ") == []


def test_perturbed_sentences_are_runs_of_words_with_some_replaced() -> None:
    texts = [" ".join(f"w{number}-{at}" for at in range(30)) for number in range(200)]
    made = [text.split() for text in synthetic_queries.perturbed_sentences(texts, random.Random(1))]
    lengths = [len(words) for words in made]
    assert synthetic_queries.MIN_LENGTH <= min(lengths) <= max(lengths) <= synthetic_queries.MAX_LENGTH
    kept = sum(word.startswith(f"w{number}-") for number, words in enumerate(made) for word in words)
    assert 1 - kept / sum(lengths) == pytest.approx(synthetic_queries.REPLACED_SHARE, abs=0.05)


def test_text_without_spaces_is_taken_in_pairs_of_characters() -> None:
    sentence = "这是一个没有空格的中文句子它比二十个字符还要长一些"
    assert meaningful_sentences(sentence + "。短。") == [sentence + "。"]
    (made,) = synthetic_queries.perturbed_sentences([sentence], random.Random(2))
    assert " " not in made
    assert set(made) <= set(sentence)


async def test_marked_queries_correct_what_own_texts_taught(scene: Scene) -> None:
    """Warranty of parts: in the words of the manual, which says nothing of it."""
    before = await scene.calibration()
    asked = [text for number in range(40, 52) for text in meaningful_sentences(manual(number)["text"])[:2]]
    await mark(scene, asked[:4], answered=True)
    await mark(scene, [f"warranty guarantee refund {text}" for text in asked[:4]], answered=False)
    assert await scene.calibration() == before  # too few to learn from
    await mark(scene, asked, answered=True)
    await mark(scene, [f"warranty guarantee refund {text}" for text in asked], answered=False)
    await mark(scene, [f"warranty guarantee refund {number}" for number in range(50)], answered=True, tenant="t")
    query = f"warranty guarantee refund {OWN}"
    sure = await scene.confidence(query)
    learnt = await scene.calibration()
    assert (learnt.marks, learnt.sources["marked as answered"]) == (24, 12)
    assert learnt.sources["marked as not answered"] == 12
    unsure, own = await scene.confidence(query), await scene.confidence(OWN)
    assert unsure["in_domain"] < sure["in_domain"] - 0.2
    assert unsure["in_domain"] < own["in_domain"] - 0.2
    await scene.sets.delete_marks(CollectionId(1), "", None)
    assert (await scene.calibration()).correction is None


async def mark(scene: Scene, queries: list[str], *, answered: bool, tenant: str = "") -> None:
    for query in queries:
        own: Any = {"id": mark_id(tenant, query), "documents": (), "actor": "ci", "at": NOW}
        await scene.sets.put_mark(CollectionId(1), Mark(query=query, answered=answered, tenant=tenant, **own))
