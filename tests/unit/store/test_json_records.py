"""What is kept as JSON comes back as it was: from rows of older programs too, never half from those of newer ones."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from service.core.collections import (
    ChunkingSettings,
    CollectionSettings,
    DeclaredField,
    EmbedderSpec,
    IndexSettings,
    MeasuredGain,
    TuningRecord,
)
from service.core.ids import VersionNumber
from service.core.logistic import Logistic
from service.core.recall import CalibrationCurve, CurvePoint
from service.core.versions import Calibration, EmbedderIdentity, PromotionCheck, PromotionEvidence
from service.store.postgres.json_records import read

AT = datetime(2026, 7, 1, 12, 0, 0, 250, tzinfo=UTC)
EVIDENCE = PromotionEvidence(
    checks=(
        PromotionCheck(
            name="recall", passed=True, detail="good", figures={"recall": 0.5, "interval": [0.25, 0.75], "n": 20}
        ),
        PromotionCheck(name="judgments", passed=None, detail="there are none"),
    ),
    gathered_at=AT,
    judged_at=AT,
    against=VersionNumber(1),
    indexed=True,
)
GAIN = MeasuredGain(before=0.5, after=1.0, low=0.25, high=0.75)
TUNED = TuningRecord(version=VersionNumber(1), at=AT, queries=50, folds=5, fusion=GAIN)


def through_json(row: Any) -> Any:
    """As the driver writes and reads it."""
    return orjson.loads(orjson.dumps(row))


@pytest.mark.parametrize(
    "value",
    [
        EVIDENCE,
        PromotionEvidence(checks=(), gathered_at=AT),
        IndexSettings(m=8, ef_construction=200, storage="binary"),
        CollectionSettings(embedder=EmbedderSpec(model="m"), tuned=TUNED, indexed=("a", "b.c")),
        CollectionSettings(indexed=("a", DeclaredField(field="b.c", type="datetime"))),
        Calibration(both=Logistic(weights=(1.0, 2.5), bias=-1.0), rows=3, sources={"own": 2}, learnt_at=AT),
        CalibrationCurve(
            points=(CurvePoint(ef_search=40, recall=0.9, low=0.8, high=1.0, milliseconds=2.0),),
            queries=10,
            rows=100,
            measured_at=AT,
            exact_milliseconds=5.0,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_comes_back_as_it_was(value: Any) -> None:
    assert read(type(value), through_json(value)) == value
    assert through_json(value) == through_json(asdict(value)), "as older programs wrote it"


def test_moments_are_written_as_older_programs_wrote_them() -> None:
    assert through_json(EVIDENCE)["gathered_at"] == AT.isoformat()


def test_a_whole_number_is_read_as_a_float_where_one_is_meant() -> None:
    bias = read(Logistic, {"weights": [1, 2], "bias": 0}).bias
    assert isinstance(bias, float)


def test_what_an_older_program_did_not_know_takes_its_default() -> None:
    assert read(IndexSettings, {}) == IndexSettings()
    assert read(PromotionEvidence, {"gathered_at": AT.isoformat()}) == PromotionEvidence(checks=(), gathered_at=AT)
    told = {"gathered_at": AT.isoformat(), "checks": [{"name": "warm", "passed": True, "detail": "all"}]}
    assert read(PromotionEvidence, told).checks == (PromotionCheck(name="warm", passed=True, detail="all"),)
    old = asdict(CollectionSettings(embedder=EmbedderSpec(model="m")))
    del old["embedder"]["identity"]
    assert read(CollectionSettings, through_json(old)) == CollectionSettings(embedder=EmbedderSpec(model="m"))


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (IndexSettings, {"m": 16, "quantiser": "newer"}),
        (PromotionEvidence, {**asdict(EVIDENCE), "signed_by": "newer"}),
        (PromotionEvidence, {"gathered_at": AT.isoformat(), "checks": [{"name": "warm", "weight": 1}]}),
        (CollectionSettings, {"newer": 1}),
        (EmbedderSpec, {"newer": 1}),
        (ChunkingSettings, {"newer": 1}),
        (EmbedderIdentity, {"parts": {}, "dimensions": 1, "max_tokens": 1, "newer": 1}),
    ],
)
def test_what_a_newer_program_wrote_is_not_read_half(kind: type[Any], row: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        read(kind, through_json(row))
