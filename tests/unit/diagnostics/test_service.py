"""The story of a diagnosis where something is not as it should be: doubles, models that are gone, and little time."""

from typing import Any

import numpy as np
import pytest

from service.core.errors import ModelUnavailable, SpaceRefused
from service.core.ids import CollectionName
from service.diagnostics import service
from service.diagnostics.thresholds import GeometryMeasure
from tests.edge import Edge, edge
from tests.rivals import DOCUMENTS

EXTERNAL = {"model": "external", "dimensions": 16, "identity": "theirs"}
ROWS = [{"id": name, "text": text} for name, text in DOCUMENTS.items()]
PLACES = np.random.default_rng(4).normal(size=(len(DOCUMENTS), 16))


async def measured(api: Edge) -> dict[str, GeometryMeasure]:
    collection = await api.service.collections.by_name(CollectionName("papers"))
    report, _ = await api.service.diagnostics.diagnose(collection, None)
    return {one.name: one for one in report.measures}


async def written(api: Edge, texts: list[str], places: np.ndarray) -> None:
    await api.collection(embedder=EXTERNAL)
    await api.fill(
        [
            {"id": f"d{at}", "text": text, "vector": place.tolist()}
            for at, (text, place) in enumerate(zip(texts, places, strict=True))
        ]
    )


async def test_different_texts_at_one_place_are_duplicates() -> None:
    places = PLACES.copy()
    places[:20] = places[0]
    places[20:30] = places[20] + 1e-2 * PLACES[30:40]
    async with edge() as api:
        await written(api, list(DOCUMENTS.values()), places)
        found = await measured(api)
    assert found["duplicates"].value == pytest.approx(20 / 60)
    assert found["near_duplicates"].value == pytest.approx(30 / 60)
    assert found["duplicates"].verdict == "watch"


async def test_the_same_text_may_lie_at_the_same_place() -> None:
    texts, places = list(DOCUMENTS.values()), PLACES.copy()
    for at in range(1, 9):
        texts[at], places[at] = f"  {texts[0].upper()}\n", places[0]
    async with edge() as api:
        await written(api, texts, places)
        found = await measured(api)
    assert found["duplicates"].value == 0.0
    assert found["near_duplicates"].value == 0.0


@pytest.mark.parametrize("error", [ModelUnavailable("its folder is gone"), SpaceRefused("another model by now")])
async def test_without_a_model_the_other_measures_remain(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> Any:
        raise error

    async with edge() as api:
        await api.collection()
        await api.fill(ROWS)
        sampling = api.service.diagnostics.sampling
        monkeypatch.setattr(sampling, "embed_queries", refuse)
        monkeypatch.setattr(sampling, "document_norms", refuse)
        found = await measured(api)
    assert found["meaning"].message == f"not measured: {error}"
    assert found["norms"].value is None
    assert found["words"].value is not None
    assert found["hubness"].verdict == "healthy"


async def test_excerpts_are_encoded_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(service, "ENCODING_SECONDS", -1.0)
    async with edge() as api:
        await api.collection()
        await api.fill(ROWS)
        sampling = api.service.diagnostics.sampling
        embedded = sampling.embed_queries

        async def counted(version: Any, texts: Any) -> Any:
            asked.append(len(texts))
            return await embedded(version, texts)

        monkeypatch.setattr(sampling, "embed_queries", counted)
        found = await measured(api)
    assert asked == [16]
    assert found["meaning"].value is None
    assert "too few texts" in found["meaning"].message


async def test_norms_are_measured_where_the_encoder_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge() as api:
        await api.collection()
        await api.fill(ROWS)
        (version,) = await api.service.versions.written()
        encoder = await api.service.embedders.get(version.spec)
        monkeypatch.setattr(
            type(encoder), "norms", lambda _, texts, role: np.array([len(text) for text in texts]), raising=False
        )
        found = await measured(api)
    lengths = np.array([len(text) for text in list(DOCUMENTS.values())])
    assert found["norms"].verdict == "healthy"
    assert found["norms"].value == pytest.approx(lengths.std() / lengths.mean(), rel=0.5)
