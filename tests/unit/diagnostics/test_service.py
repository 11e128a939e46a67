"""The story of a diagnosis where something is not as it should be: doubles, models that are gone, and little time."""

from collections.abc import AsyncIterator
from unittest.mock import AsyncMock

import numpy as np
import pytest

from service.core.errors import ModelUnavailable, SpaceRefused
from service.core.ids import CollectionName
from service.diagnostics import service
from service.diagnostics.thresholds import GeometryMeasure
from tests.edge import Edge, edge
from tests.rivals import DOCUMENTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("computed_here")]

EXTERNAL = {"model": "external", "dimensions": 16, "identity": "theirs"}
ROWS = [{"id": name, "text": text} for name, text in DOCUMENTS.items()]
PLACES = np.random.default_rng(4).normal(size=(len(DOCUMENTS), 16))


async def measured(api: Edge) -> dict[str, GeometryMeasure]:
    collection = await api.service.collections.by_name(CollectionName("papers"))
    report, _ = await api.service.diagnostics.diagnose(collection, None)
    return {one.name: one for one in report.measures}


async def measured_vectors(texts: list[str], places: np.ndarray) -> dict[str, GeometryMeasure]:
    rows = enumerate(zip(texts, places.tolist(), strict=True))
    async with edge() as api:
        await api.collection(embedder=EXTERNAL)
        await api.fill([{"id": f"d{at}", "text": text, "vector": place} for at, (text, place) in rows])
        return await measured(api)


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    async with edge() as api:
        await api.collection()
        await api.fill(ROWS)
        yield api


async def test_different_texts_at_one_place_are_duplicates() -> None:
    places = PLACES.copy()
    places[:20] = places[0]
    places[20:30] = places[20] + 1e-2 * PLACES[30:40]
    found = await measured_vectors(list(DOCUMENTS.values()), places)
    assert found["duplicates"].value == pytest.approx(20 / 60)
    assert found["near_duplicates"].value == pytest.approx(30 / 60)
    assert found["duplicates"].verdict == "watch"


async def test_the_same_text_may_lie_at_the_same_place() -> None:
    texts, places = list(DOCUMENTS.values()), PLACES.copy()
    for at in range(1, 9):
        texts[at], places[at] = f"  {texts[0].upper()}\n", places[0]
    found = await measured_vectors(texts, places)
    assert found["duplicates"].value == found["near_duplicates"].value == 0.0


@pytest.mark.parametrize("error", [ModelUnavailable("its folder is gone"), SpaceRefused("another model by now")])
async def test_without_a_model_the_other_measures_remain(
    api: Edge, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("embed_queries", "document_norms"):
        monkeypatch.setattr(api.service.diagnostics.sampling, method, AsyncMock(side_effect=error))
    found = await measured(api)
    assert found["meaning"].message == f"not measured: {error}"
    assert found["norms"].value is None
    assert found["words"].value is not None
    assert found["hubness"].verdict == "healthy"


async def test_excerpts_are_encoded_until_the_deadline(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ENCODING_SECONDS", -1.0)
    sampling = api.service.diagnostics.sampling
    counted = AsyncMock(side_effect=sampling.embed_queries)
    monkeypatch.setattr(sampling, "embed_queries", counted)
    found = await measured(api)
    assert [len(call.args[1]) for call in counted.await_args_list] == [16]
    assert found["meaning"].value is None
    assert "no time" in found["meaning"].message


async def test_norms_are_measured_where_the_encoder_knows_them(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    (version,) = await api.service.versions.written()
    encoder = await api.service.embedders.get(version.spec)
    monkeypatch.setattr(type(encoder), "norms", lambda _, texts, role: np.array([*map(len, texts)]), raising=False)
    found = await measured(api)
    lengths = np.array([*map(len, DOCUMENTS.values())])
    assert found["norms"].verdict == "healthy"
    assert found["norms"].value == pytest.approx(lengths.std() / lengths.mean(), rel=0.5)
