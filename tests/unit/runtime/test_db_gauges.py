"""A deleted collection leaves no metrics behind, whatever it was measured by and whenever."""

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from service.core import metrics
from service.core.collections import EXTERNAL, CollectionSettings, EmbedderSpec
from service.core.ids import CollectionName
from service.core.versions import EmbedderIdentity
from service.runtime.db_gauges import DatabaseGauges, KnownCollections
from tests.edge import connect
from tests.fakes import FakeAdapters
from tests.world import NOW, doc, later

NAME = CollectionName("metrics-of-deleted")
IDENTITY = EmbedderIdentity(parts={"weights": "test"}, dimensions=4, max_tokens=256)


def measure_everything(name: str) -> None:
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and "collection" in metric._labelnames:
            metric.labels(**{label: name if label == "collection" else "1" for label in metric._labelnames})


def series(name: str) -> int:
    return sum(sample.labels.get("collection") == name for family in REGISTRY.collect() for sample in family.samples)


@pytest.fixture
def adapters() -> FakeAdapters:
    return FakeAdapters()


async def create(adapters: FakeAdapters) -> None:
    await adapters.collections.create(NAME, CollectionSettings(), IDENTITY, {"text": (1.0,) * 4}, NOW)


async def delete(adapters: FakeAdapters) -> None:
    await adapters.collections.delete((await adapters.collections.by_name(NAME)).id)


async def test_the_series_of_a_deleted_collection_go_with_the_next_reading(adapters: FakeAdapters) -> None:
    known = KnownCollections(adapters.collections)
    await create(adapters)
    measure_everything(NAME)
    await known.refresh()
    assert series(NAME) > 50
    await delete(adapters)
    await known.refresh()
    assert series(NAME) == 0


async def test_what_a_late_search_of_it_leaves_goes_as_well(adapters: FakeAdapters) -> None:
    known = KnownCollections(adapters.collections)
    await create(adapters)
    await known.refresh()
    await delete(adapters)
    await known.refresh()
    measure_everything(NAME)
    for _ in range(2):
        await known.refresh()
    assert series(NAME) == 0


async def test_a_collection_that_lived_between_two_readings_leaves_nothing(adapters: FakeAdapters) -> None:
    known = KnownCollections(adapters.collections)
    measure_everything(NAME)
    for _ in range(2):
        await known.refresh()
    assert series(NAME) == 0


async def test_a_new_collection_keeps_what_was_measured_before_it_was_listed(adapters: FakeAdapters) -> None:
    known = KnownCollections(adapters.collections)
    measure_everything(NAME)
    before = series(NAME)
    await known.refresh()  # the list was read a moment before the collection was created
    await create(adapters)
    await known.refresh()
    assert series(NAME) == before
    metrics.remove_collection(NAME)


@pytest.mark.parametrize("external", [False, True])
async def test_a_document_that_waits_for_its_client_is_no_backlog(adapters: FakeAdapters, external: bool) -> None:
    spec = EmbedderSpec(model=EXTERNAL, identity="mine", dimensions=4) if external else EmbedderSpec()
    await adapters.collections.create(NAME, CollectionSettings(embedder=spec), IDENTITY, {"text": (1.0,) * 4}, NOW)
    collection = await adapters.collections.by_name(NAME)
    await adapters.documents.put(collection.id, [doc("a")], NOW)
    gauges = connect(DatabaseGauges, adapters, known=KnownCollections(adapters.collections))
    await gauges.refresh(lambda: later(60))

    def value(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"azimuth_{name}", {"collection": NAME})

    assert value("queue_pending") == (0 if external else 1)
    assert value("queue_oldest_seconds") == (0 if external else 60)
    assert value("documents_without_vector") == (1 if external else 0)
