"""The dense probe: what is compared, what is tried besides, and which probes are void."""

import dataclasses

import pytest

from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.examples import Example, Like
from service.core.filters import parse
from service.core.ids import DocumentId, VersionNumber
from service.core.recall import RecallSeries
from service.core.search import FilterMatch, SearchRequest
from service.recall.aggregate import RecallSample
from service.recall.dense_probe import DenseProbe, ProbedQuery
from service.search import filter_planner
from tests.lossy_index import LossyCollection, lossy_collection
from tests.world import doc, encoded, telling

FILTERED = SearchRequest(text="w", where=parse({"kind": "thing"}))
ALL_PASS = FilterMatch(ids=None, count=30, total=30)


@pytest.fixture
async def scene() -> LossyCollection:
    return await lossy_collection()


async def samples_of(
    scene: LossyCollection, query: ProbedQuery, probe: DenseProbe | None = None
) -> tuple[RecallSample, ...] | None:
    return await (probe or scene.dense_probe()).probe(query, scene.space)


async def only_sample(scene: LossyCollection, query: ProbedQuery, probe: DenseProbe | None = None) -> RecallSample:
    (sample,) = await samples_of(scene, query, probe) or ()
    return sample


async def test_an_index_that_finds_all_has_recall_1(scene: LossyCollection) -> None:
    sample, version = await only_sample(scene, scene.probed_query()), scene.space.version.number
    series = RecallSeries(version=version, leg="dense", plan="hnsw", band="all", ef_search=200)
    assert (sample.series, sample.live) == (series, True)
    assert (sample.stats.queries, sample.stats.recall, sample.stats.distance_recall) == (1, 1.0, 1.0)
    assert sample.stats.seconds > 0


async def test_what_the_index_does_not_find_is_missed(scene: LossyCollection) -> None:
    query = scene.probed_query()
    scene.vectors.lost = frozenset((await scene.nearest(query))[2:5])
    stats = (await only_sample(scene, query)).stats
    assert (stats.recall, stats.distance_recall) == (0.7, 0.7)
    assert stats.recall_squares == pytest.approx(0.49)


async def test_where_there_are_fewer_documents_all_of_them_are_the_truth(scene: LossyCollection) -> None:
    await scene.world.delete(*(f"d{number:02}" for number in range(4, 30)))
    scene.vectors.lost = frozenset({"d02"})
    assert (await only_sample(scene, scene.probed_query(SearchRequest(text="w", k=3)))).stats.recall == 0.75


async def test_the_examples_themselves_are_no_hits(scene: LossyCollection) -> None:
    query = scene.probed_query()
    nearest = await scene.nearest(query, 11)
    like = Like(positive=(Example(id=DocumentId(nearest[0])),))
    query = dataclasses.replace(query, request=SearchRequest(mode="dense", like=like))
    for lost, recall in ((0, 1.0), (10, 0.9)):
        scene.vectors.lost = frozenset({nearest[lost]})
        assert (await only_sample(scene, query)).stats.recall == recall


async def test_a_filtered_search_is_probed_with_its_filter(scene: LossyCollection) -> None:
    await scene.world.put(*(doc(f"d{number:02}", "0123456789", kind="other") for number in range(5)))
    query = scene.probed_query(dataclasses.replace(FILTERED, k=10), FilterMatch(ids=None, count=25, total=30))
    things = [name for name in await scene.nearest(query, 30) if int(name[1:]) >= 5]
    scene.vectors.lost = frozenset(things[:1])
    sample = await only_sample(scene, query)
    assert (sample.stats.recall, sample.series.band) == (0.9, "wide")
    assert sample.series.plan in ("hnsw", "hnsw_iterative")


async def test_the_step_below_is_tried_as_well_and_is_no_live_search(scene: LossyCollection) -> None:
    probe = scene.dense_probe(lower_step=lambda ef_search: ef_search // 20)
    samples = await samples_of(scene, scene.probed_query(), probe) or ()
    tried = [(one.live, one.series.ef_search, one.stats.recall) for one in samples]
    assert tried == [(True, 200, 1.0), (False, 10, 1.0)]


async def test_below_the_chosen_ef_search_not_below_what_the_answer_needed(scene: LossyCollection) -> None:
    tried: list[int] = []
    status = dataclasses.replace(scene.space.status, ef_settings={"all": 15})
    scene.space = dataclasses.replace(scene.space, status=status)
    await samples_of(scene, scene.probed_query(), scene.dense_probe(lower_step=tried.append))
    assert tried == [15]


@pytest.mark.parametrize(
    "request_", [SearchRequest(text="w", ef_search=100), FILTERED], ids=["the client chose", "a filter"]
)
async def test_nothing_is_tried_besides(scene: LossyCollection, request_: SearchRequest) -> None:
    asked: list[int] = []
    query = scene.probed_query(request_, ALL_PASS if request_.where else None)
    await only_sample(scene, query, scene.dense_probe(lower_step=asked.append))
    assert asked == []


async def test_fewer_rows_than_the_answer_needs_are_not_tried(scene: LossyCollection) -> None:
    await only_sample(scene, scene.probed_query(), scene.dense_probe(lower_step=lambda _: 9))


async def test_what_would_run_exactly_by_now_needs_no_probe(scene: LossyCollection) -> None:
    scene.space = dataclasses.replace(scene.space, status=dataclasses.replace(scene.space.status, indexed=False))
    assert await samples_of(scene, scene.probed_query()) == ()


async def test_a_write_between_the_runs_voids_the_probe(scene: LossyCollection) -> None:
    query = scene.probed_query()
    nearest = await scene.nearest(query)

    async def encode_again() -> None:
        await scene.world.put(doc(nearest[0], "other words"))
        (claimed,) = await scene.world.claim()
        await scene.world.store(encoded(claimed, telling("far away")[None, :]))

    for write in (
        encode_again,
        lambda: scene.world.delete(nearest[3]),
        lambda: scene.world.put_and_store({"new": query.vector[None, :]}),
    ):
        scene.vectors.meanwhile = write
        assert await samples_of(scene, query) is None
        assert (await only_sample(scene, query)).stats.recall == 1.0


async def test_a_document_that_ceases_to_pass_voids_the_probe_and_other_changes_do_not(scene: LossyCollection) -> None:
    query = scene.probed_query(FILTERED, ALL_PASS)
    nearest = await scene.nearest(query, 30)
    scene.vectors.meanwhile = lambda: scene.world.put(doc(nearest[0], "0123456789", kind="other"))
    assert await samples_of(scene, query) is None
    scene.vectors.meanwhile = lambda: scene.world.put(doc(nearest[25], "0123456789", kind="other"))
    assert (await only_sample(scene, query)).stats.recall == 1.0


async def test_a_remembered_search_is_planned_again(scene: LossyCollection) -> None:
    assert scene.world.fake is not None
    key = scene.world.collection.id, scene.world.version.number
    samples = await scene.dense_probe().probe(scene.probed_query(), None)
    assert [one.series.ef_search for one in samples or ()] == [filter_planner.DEFAULT_EF_SEARCH]
    scene.world.fake.versions.statuses[key] = dataclasses.replace(scene.space.status, indexed=False)
    scene.spaces.forget()
    assert await scene.dense_probe().probe(scene.probed_query(), None) == ()


async def test_its_filter_is_resolved_again_too(scene: LossyCollection) -> None:
    query = scene.probed_query(FILTERED, FilterMatch(ids=None, count=1, total=1_000_000))
    assert await scene.dense_probe().probe(query, None) == (), "thirty documents are listed, and scanned exactly"


async def test_vectors_of_a_version_that_answers_no_longer_are_not_compared(scene: LossyCollection) -> None:
    query = dataclasses.replace(scene.probed_query(), version=VersionNumber(7))
    with pytest.raises(VersionNotFound):
        await scene.dense_probe().probe(query, None)
    await scene.world.collections.delete(scene.world.collection.id)
    scene.spaces.forget()
    with pytest.raises(CollectionNotFound):
        await scene.dense_probe().probe(scene.probed_query(), None)
