"""One search looked at again: what is compared, what is tried besides, and which pairs say nothing."""

import dataclasses

import pytest

from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.filters import parse
from service.core.ids import DocumentId, VersionNumber
from service.core.recall import RecallSeries
from service.core.search import Example, FilterMatch, Like, SearchRequest
from service.recall.aggregate import RecallSample
from service.search import filter_planner
from tests.watched import Watched, watched
from tests.world import doc, encoded, telling

THINGS = parse({"kind": "thing"})


@pytest.fixture
async def scene() -> Watched:
    return await watched()


def the_only(findings: tuple[RecallSample, ...] | None) -> RecallSample:
    assert findings is not None
    (one,) = findings
    return one


async def test_an_index_that_finds_all_has_recall_1(scene: Watched) -> None:
    one = the_only(await scene.probe().probe(scene.asked(), scene.space))
    assert one.series == RecallSeries(
        version=scene.space.version.number, leg="dense", plan="hnsw", band="all", ef_search=200
    )
    assert one.live
    assert (one.stats.queries, one.stats.recall, one.stats.distance_recall) == (1, 1.0, 1.0)
    assert one.stats.seconds > 0


async def test_what_the_index_does_not_find_is_missed(scene: Watched) -> None:
    asked = scene.asked()
    scene.vectors.lost = frozenset((await scene.nearest(asked))[2:5])
    one = the_only(await scene.probe().probe(asked, scene.space))
    assert one.stats.recall == 0.7
    assert one.stats.recall_squares == pytest.approx(0.49)
    assert one.stats.distance_recall == 0.7


async def test_where_there_are_fewer_documents_all_of_them_are_the_truth(scene: Watched) -> None:
    await scene.world.delete(*(f"d{number:02}" for number in range(4, 30)))
    scene.vectors.lost = frozenset({"d02"})
    one = the_only(await scene.probe().probe(scene.asked(SearchRequest(text="w", k=3)), scene.space))
    assert one.stats.recall == 0.75


async def test_the_examples_themselves_are_no_finds(scene: Watched) -> None:
    asked = scene.asked()
    nearest = await scene.nearest(asked, 11)
    like = Like(positive=(Example(id=DocumentId(nearest[0])),))
    asked = dataclasses.replace(asked, request=SearchRequest(mode="dense", like=like))
    scene.vectors.lost = frozenset({nearest[0]})
    assert the_only(await scene.probe().probe(asked, scene.space)).stats.recall == 1.0
    scene.vectors.lost = frozenset({nearest[10]})
    assert the_only(await scene.probe().probe(asked, scene.space)).stats.recall == 0.9


async def test_a_filtered_search_is_looked_at_with_its_filter(scene: Watched) -> None:
    await scene.world.put(*(doc(f"d{number:02}", "0123456789", kind="other") for number in range(5)))
    filter_match = FilterMatch(ids=None, count=25, total=30)
    asked = scene.asked(SearchRequest(text="w", where=THINGS, k=10), filter_match)
    all_of_it = await scene.nearest(asked, 30)
    things = [name for name in all_of_it if int(name[1:]) >= 5]
    scene.vectors.lost = frozenset(things[:1])
    one = the_only(await scene.probe().probe(asked, scene.space))
    assert one.stats.recall == 0.9
    assert one.series.band == "wide"
    assert one.series.plan in ("hnsw", "hnsw_iterative")


# ---------------------------------------------------------------- what is tried besides


async def test_the_effort_below_is_tried_as_well_and_is_no_live_search(scene: Watched) -> None:
    asked = scene.asked()
    findings = await scene.probe(lower_step=lambda ef_search: ef_search // 20).probe(asked, scene.space)
    assert findings is not None
    live, below = findings
    assert (live.live, live.series.ef_search, live.stats.recall) == (True, 200, 1.0)
    assert (below.live, below.series.ef_search, below.stats.recall) == (False, 10, 1.0)


async def test_below_the_chosen_effort_not_below_what_the_answer_needed(scene: Watched) -> None:
    tried: list[int] = []

    def below(ef_search: int) -> None:
        tried.append(ef_search)

    chosen = dataclasses.replace(scene.space, status=dataclasses.replace(scene.space.status, ef_settings={"all": 15}))
    await scene.probe(lower_step=below).probe(scene.asked(), chosen)
    assert tried == [15]


@pytest.mark.parametrize(
    "request_",
    [SearchRequest(text="w", ef_search=100), SearchRequest(text="w", where=THINGS)],
    ids=["the client chose", "a filter"],
)
async def test_nothing_is_tried_besides(scene: Watched, request_: SearchRequest) -> None:
    def below(ef_search: int) -> int:
        raise AssertionError("it was asked")

    filter_match = FilterMatch(ids=None, count=30, total=30) if request_.where else None
    the_only(await scene.probe(lower_step=below).probe(scene.asked(request_, filter_match), scene.space))


async def test_fewer_rows_than_the_answer_needs_are_not_tried(scene: Watched) -> None:
    the_only(await scene.probe(lower_step=lambda _: 9).probe(scene.asked(), scene.space))


# ---------------------------------------------------------------- what says nothing


async def test_what_runs_exactly_by_now_needs_no_look(scene: Watched) -> None:
    status = dataclasses.replace(scene.space.status, indexed=False)
    space = dataclasses.replace(scene.space, status=status)
    assert await scene.probe().probe(scene.asked(), space) == ()


async def test_a_document_that_is_deleted_between_the_looks_tears_the_pair(scene: Watched) -> None:
    asked = scene.asked()
    nearest = await scene.nearest(asked)
    scene.vectors.meanwhile = lambda: scene.world.delete(nearest[3])
    assert await scene.probe().probe(asked, scene.space) is None
    assert the_only(await scene.probe().probe(asked, scene.space)).stats.recall == 1.0


async def test_a_document_that_comes_between_the_looks_tears_the_pair(scene: Watched) -> None:
    asked = scene.asked()
    scene.vectors.meanwhile = lambda: scene.world.put_and_store({"new": asked.vector[None, :]})
    assert await scene.probe().probe(asked, scene.space) is None


async def test_a_document_that_is_encoded_anew_between_the_looks_tears_the_pair(scene: Watched) -> None:
    asked = scene.asked()
    nearest = await scene.nearest(asked)

    async def change() -> None:
        await scene.world.put(doc(nearest[0], "other words"))
        (claimed,) = await scene.world.claim()
        await scene.world.store(encoded(claimed, telling("far away")[None, :]))

    scene.vectors.meanwhile = change
    assert await scene.probe().probe(asked, scene.space) is None


async def test_a_document_that_ceases_to_pass_tears_the_pair_and_other_changes_do_not(scene: Watched) -> None:
    asked = scene.asked(SearchRequest(text="w", where=THINGS), FilterMatch(ids=None, count=30, total=30))
    nearest = await scene.nearest(asked, 30)
    scene.vectors.meanwhile = lambda: scene.world.put(doc(nearest[0], "0123456789", kind="other"))
    assert await scene.probe().probe(asked, scene.space) is None
    scene.vectors.meanwhile = lambda: scene.world.put(doc(nearest[25], "0123456789", kind="other"))
    assert the_only(await scene.probe().probe(asked, scene.space)).stats.recall == 1.0


# ---------------------------------------------------------------- longer ago


async def test_a_remembered_search_is_planned_anew(scene: Watched) -> None:
    assert scene.world.fake is not None
    key = scene.world.collection.id, scene.world.version.number
    one = the_only(await scene.probe().probe(scene.asked(), None))
    assert one.series.ef_search == filter_planner.DEFAULT_EF_SEARCH
    scene.world.fake.versions.statuses[key] = dataclasses.replace(scene.space.status, indexed=False)
    scene.spaces.forget(scene.space.collection.name)
    assert await scene.probe().probe(scene.asked(), None) == ()


async def test_what_passes_is_asked_anew_too(scene: Watched) -> None:
    asked = scene.asked(SearchRequest(text="w", where=THINGS), FilterMatch(ids=None, count=1, total=1_000_000))
    assert await scene.probe().probe(asked, None) == (), "thirty documents are named, and scanned exactly"


async def test_vectors_of_a_version_that_answers_no_more_are_not_compared(scene: Watched) -> None:
    asked = dataclasses.replace(scene.asked(), version=VersionNumber(7))
    with pytest.raises(VersionNotFound):
        await scene.probe().probe(asked, None)
    await scene.world.collections.delete(scene.world.collection.id)
    scene.spaces.forget(scene.space.collection.name)
    with pytest.raises(CollectionNotFound):
        await scene.probe().probe(scene.asked(), None)
