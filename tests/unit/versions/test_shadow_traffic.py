"""Shadow traffic: what is remembered, what is compared, and that nothing of it reaches a client."""

import asyncio
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from prometheus_client import REGISTRY

from service.core import filters
from service.core.errors import DatabaseUnavailable
from service.core.ids import CollectionName, VersionNumber
from service.core.search import RerankRequest, SearchRequest, SearchResult
from service.core.versions import VersionState
from service.versions import shadow_traffic
from service.versions.shadow_traffic import ShadowTraffic
from tests.fakes import FakeCollections
from tests.rivals import BAD, GOOD, NAME, OTHER, QUERIES, Rivals
from tests.running import running, until


def add_texts(of: ShadowTraffic, *texts: str, **request: Any) -> None:
    for text in texts:
        of.add(NAME, SearchRequest(text=text, **request))


def counted(version: int) -> float:
    return measured("searches_total", version) or 0.0


def measured(metric: str, version: int) -> float | None:
    labels = {"collection": NAME, "version": str(version)}
    return REGISTRY.get_sample_value(f"azimuth_shadow_{metric}", labels)


def test_searches_are_remembered_once_each_newest_first(rivals: Rivals) -> None:
    of = rivals.shadow()
    add_texts(of, "a", "b", "a")
    of.add(NAME, SearchRequest(text="b", where=filters.parse({"tags": {"$in": ["x", "y"]}})))
    recent = [(request.text, request.where is None) for request in of.recent(NAME)]
    assert recent == [("b", False), ("a", True), ("b", True)]
    assert of.recent(CollectionName("others")) == ()


def test_what_is_remembered_is_bounded(rivals: Rivals) -> None:
    of = rivals.shadow()
    add_texts(of, *(f"query {number}" for number in range(shadow_traffic.MAX_REMEMBERED + 10)))
    assert len(of.recent(NAME)) == shadow_traffic.MAX_REMEMBERED
    assert of.recent(NAME)[0].text == f"query {shadow_traffic.MAX_REMEMBERED + 9}"
    for number in range(shadow_traffic.MAX_COLLECTIONS):
        of.add(CollectionName(f"c{number}"), SearchRequest(text="query"))
    assert of.recent(NAME) == (), "the collection that was searched longest ago is forgotten"
    assert of.recent(CollectionName("c0"))


def test_very_long_searches_are_not_remembered(rivals: Rivals) -> None:
    of = rivals.shadow()
    names = [f"name {number}" for number in range(shadow_traffic.MAX_OPERANDS)]
    of.add(NAME, SearchRequest(text="a" * (shadow_traffic.MAX_TEXT_LENGTH + 1)))
    add_texts(of, "many", where=filters.parse({"$not": {"$or": [{"by": {"$in": names}}, {"x": 1}]}}))
    assert of.recent(NAME) == ()
    of.add(NAME, SearchRequest(text="just so many", where=filters.parse({"by": {"$in": names}})))
    assert len(of.recent(NAME)) == 1


def test_what_cannot_be_asked_of_another_version_is_left_out(rivals: Rivals) -> None:
    of = rivals.shadow()
    of.add(NAME, SearchRequest(text="", vector=(1.0, 0.0)))
    of.add(NAME, SearchRequest(text="pinned", embedder_version=VersionNumber(1)))
    assert of.recent(NAME) == ()


def test_what_costs_time_and_says_nothing_is_taken_off(rivals: Rivals) -> None:
    of = rivals.shadow()
    of.add(NAME, SearchRequest(text="a", k=50, budget_ms=5.0, rerank=RerankRequest(), candidates=70, mode="dense"))
    (request,) = of.recent(NAME)
    assert request == SearchRequest(text="a", k=10, candidates=70, mode="dense", include=frozenset())


def test_adding_never_waits_however_many_are_queued(rivals: Rivals) -> None:
    of = rivals.shadow()
    add_texts(of, *(f"query {number}" for number in range(10 * shadow_traffic.MAX_QUEUED)))


async def test_a_candidate_answers_live_searches_again(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(BAD)
    of, before = rivals.shadow(), counted(candidate.number)
    async with running(of.run):
        add_texts(of, *list(QUERIES.values())[:20], mode="dense")
        await until(lambda: counted(candidate.number) == before + 20)
    report = of.report(collection, candidate)
    assert report is not None
    assert (report.queries, report.errors) == (20, 0)
    assert 0 < report.overlap_at_10 < 0.8
    assert report.kendall_tau is not None
    assert -1 < report.kendall_tau < 1
    assert 0 < report.old_p50_ms <= report.old_p95_ms
    assert 0 < report.new_p50_ms <= report.new_p95_ms
    assert measured("overlap_at_10", candidate.number) == pytest.approx(report.overlap_at_10)


async def test_the_same_embedder_answers_the_same(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(GOOD, VersionState.READY)
    of = rivals.shadow()
    add_texts(of, *list(QUERIES.values())[:5])
    report = await of.compare(collection, candidate, 5)
    assert (report and (report.queries, report.overlap_at_10, report.kendall_tau)) == (5, 1.0, 1.0)


async def test_only_versions_that_may_be_promoted_are_asked(rivals: Rivals) -> None:
    first = await rivals.active()
    backfilling = await rivals.add(OTHER, VersionState.BACKFILLING)
    ready = await rivals.add(BAD, VersionState.READY)
    rows, id_ = rivals.collections.rows, first.collection_id
    rows[id_] = replace(rows[id_], previous_version=ready.number)
    candidate = await rivals.add(OTHER, VersionState.READY)
    numbers = [version.number for version in (first, backfilling, ready, candidate)]
    before = [counted(number) for number in numbers]
    of = rivals.shadow()
    async with running(of.run):
        of.add(NAME, SearchRequest(text="a word"))
        await until(lambda: counted(candidate.number) > before[-1])
    assert [counted(number) - count for number, count in zip(numbers, before, strict=True)] == [0, 0, 0, 1]


async def test_no_share_no_search(rivals: Rivals) -> None:
    candidate = await rivals.add(OTHER)
    of, before = rivals.shadow(share=0.0), counted(candidate.number)
    async with running(of.run):
        of.add(NAME, SearchRequest(text="a word"))
        for _ in range(20):
            await asyncio.sleep(0)
    assert counted(candidate.number) == before
    assert of.recent(NAME)


async def test_a_candidate_that_cannot_answer_is_counted_and_hurts_nobody(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(OTHER)
    of, before = (
        rivals.shadow(search=rivals.search(verifier=rivals.refusing(candidate.number))),
        counted(candidate.number),
    )
    async with running(of.run):
        of.add(NAME, SearchRequest(text="a word", mode="dense"))
        of.add(NAME, SearchRequest(text="a word", mode="hybrid"))  # the words alone would look like agreement
        await until(lambda: counted(candidate.number) == before + 2)
    report = of.report(collection, candidate)
    assert (report and (report.queries, report.errors)) == (0, 2)


async def test_trouble_of_the_active_version_is_not_the_candidates(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(OTHER)
    of = rivals.shadow(search=rivals.search(verifier=rivals.refusing(collection.active_version, candidate.number)))
    add_texts(of, *(f"word {number}" for number in range(10)), mode="dense")
    assert await of.compare(collection, candidate, 10) is None


async def test_it_goes_on_after_trouble_of_any_kind(rivals: Rivals, caplog: pytest.LogCaptureFixture) -> None:
    candidate = await rivals.add(OTHER)
    troubled, of, before = FakeCollections(), rivals.shadow(), counted(candidate.number)
    answers = [DatabaseUnavailable(), ZeroDivisionError(), await rivals.collection()]
    troubled.by_name = AsyncMock(side_effect=answers)  # type: ignore[method-assign]
    of.collections = troubled
    async with running(of.run):
        add_texts(of, "one", "two", "three")
        await until(lambda: counted(candidate.number) == before + 1)
    levels = [record.levelname for record in caplog.records if record.name == "service.versions.shadow_traffic"]
    assert levels == ["ERROR"]


async def test_stopping_does_not_wait_for_a_search(rivals: Rivals) -> None:
    await rivals.add(OTHER)
    began, search = asyncio.Event(), rivals.search()

    async def endless(name: CollectionName, request: SearchRequest) -> SearchResult:
        began.set()
        return await asyncio.Future()

    search.run_background = endless  # type: ignore[method-assign]
    of = rivals.shadow(search=search)
    async with running(of.run):
        of.add(NAME, SearchRequest(text="a word"))
        await asyncio.wait_for(began.wait(), 5)


async def test_cancelling_leaves_nothing_behind(rivals: Rivals) -> None:
    task = asyncio.create_task(rivals.shadow().run(asyncio.Event()))
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {task}
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not [one for one in asyncio.all_tasks() - others if not one.done()]


async def test_remembered_searches_fill_up_what_was_not_answered_live(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(OTHER)
    of = rivals.shadow(share=0.0)
    assert await of.compare(collection, candidate, 10) is None, "nothing was asked yet"
    add_texts(of, *QUERIES.values())
    before = counted(candidate.number)
    for limit in (10, 15):
        report = await of.compare(collection, candidate, limit)
        assert (report and report.queries) == limit
    assert counted(candidate.number) == before + 15, "what was compared already is not asked again"


async def test_comparing_ends_when_its_time_is_up(rivals: Rivals, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(OTHER)
    of = rivals.shadow(share=0.0)
    add_texts(of, *QUERIES.values())
    monkeypatch.setattr(shadow_traffic, "COMPARE_SECONDS", -1.0)
    assert await of.compare(collection, candidate, 10) is None


async def test_what_was_measured_against_another_active_version_does_not_count(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(OTHER)
    other = await rivals.add(BAD)
    of = rivals.shadow(share=0.0)
    of.add(NAME, SearchRequest(text="a word"))
    assert await of.compare(collection, candidate, 10) is not None
    assert of.report(replace(collection, active_version=other.number), candidate) is None


async def test_a_version_that_is_a_candidate_no_more_leaves_no_gauge(rivals: Rivals) -> None:
    collection, candidate = await rivals.collection(), await rivals.add(OTHER)
    of = rivals.shadow()
    of.add(NAME, SearchRequest(text="a word"))
    assert await of.compare(collection, candidate, 10) is not None
    assert measured("overlap_at_10", candidate.number) is not None
    await rivals.versions.move(candidate, VersionState.FAILED, None)
    async with running(of.run):
        await until(lambda: measured("overlap_at_10", candidate.number) is None)
    assert of.report(collection, candidate) is None
