"""How settings, specs, identities and evidence are kept as JSON: the one place that knows both sides.

What a row does not name takes its default, so that a new setting needs no migration. What this program does not know
is an error (TypeError): a row written by a newer program must not be read half.
"""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from service.core.collections import (
    ChunkingSettings,
    CollectionSettings,
    EmbedderSpec,
    FusionSettings,
    IndexSettings,
    MeasuredGain,
    RerankSettings,
    TuningRecord,
)
from service.core.logistic import Logistic
from service.core.recall import CalibrationCurve, CurvePoint
from service.core.versions import Calibration, EmbedderIdentity, Judgments, PromotionCheck, PromotionEvidence

Json = dict[str, Any]


def settings_to_json(settings: CollectionSettings) -> Json:
    row = dataclasses.asdict(settings)
    if settings.tuned is not None:
        row["tuned"]["at"] = settings.tuned.at.isoformat()
    return row


def settings_from_json(row: Mapping[str, Any]) -> CollectionSettings:
    values = dict(row)
    for name, read in _PARTS.items():
        if values.get(name) is not None:
            values[name] = read(values[name])
    return CollectionSettings(**values)


def spec_to_json(spec: EmbedderSpec) -> Json:
    return dataclasses.asdict(spec)


def spec_from_json(row: Mapping[str, Any]) -> EmbedderSpec:
    return EmbedderSpec(**row)


def chunking_to_json(chunking: ChunkingSettings) -> Json:
    return dataclasses.asdict(chunking)


def chunking_from_json(row: Mapping[str, Any]) -> ChunkingSettings:
    return ChunkingSettings(**row)


def identity_to_json(identity: EmbedderIdentity) -> Json:
    return {"parts": dict(identity.parts), "dimensions": identity.dimensions, "max_tokens": identity.max_tokens}


def identity_from_json(row: Mapping[str, Any]) -> EmbedderIdentity:
    return EmbedderIdentity(**row)


def canary_to_json(canary: Mapping[str, tuple[float, ...]]) -> Json:
    return {text: list(vector) for text, vector in canary.items()}


def canary_from_json(row: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    # A whole number comes back from JSON as an integer.
    return {text: tuple(map(float, vector)) for text, vector in row.items()}


def index_to_json(index: IndexSettings) -> Json:
    return dataclasses.asdict(index)


def index_from_json(row: Mapping[str, Any]) -> IndexSettings:
    return IndexSettings(**row)


def evidence_to_json(evidence: PromotionEvidence) -> Json:
    """Moments as ISO 8601."""
    return {
        "checks": [_check_to_json(check) for check in evidence.checks],
        "gathered_at": evidence.gathered_at.isoformat(),
        "judged_at": None if evidence.judged_at is None else evidence.judged_at.isoformat(),
        "against": evidence.against,
        "indexed": evidence.indexed,
        "effort": evidence.effort,
    }


def evidence_from_json(row: Mapping[str, Any]) -> PromotionEvidence:
    moments = {
        name: datetime.fromisoformat(row[name]) for name in ("gathered_at", "judged_at") if row.get(name) is not None
    }
    return PromotionEvidence(
        **{**row, **moments, "checks": tuple(PromotionCheck(**check) for check in row.get("checks", ()))}
    )


def _check_to_json(check: PromotionCheck) -> Json:
    return {"name": check.name, "passed": check.passed, "detail": check.detail, "figures": dict(check.figures)}


def calibration_to_json(calibration: Calibration) -> Json:
    """Moments as ISO 8601."""
    return {
        **dataclasses.asdict(calibration),
        "learnt_at": calibration.learnt_at.isoformat(),
        "judged_at": None if calibration.judged_at is None else calibration.judged_at.isoformat(),
    }


def calibration_from_json(row: Mapping[str, Any]) -> Calibration:
    lines = {name: _logistic_from_json(row[name]) for name in ("dense", "both") if row.get(name) is not None}
    moments = {
        name: datetime.fromisoformat(row[name]) for name in ("learnt_at", "judged_at") if row.get(name) is not None
    }
    return Calibration(**{**row, **lines, **moments})


def _logistic_from_json(row: Mapping[str, Any]) -> Logistic:
    # A whole number comes back from JSON as an integer.
    return Logistic(weights=tuple(map(float, row["weights"])), bias=float(row["bias"]))


def curve_to_json(curve: CalibrationCurve) -> Json:
    """Moments as ISO 8601."""
    return {**dataclasses.asdict(curve), "measured_at": curve.measured_at.isoformat()}


def curve_from_json(row: Mapping[str, Any]) -> CalibrationCurve:
    points = tuple(CurvePoint(**point) for point in row["points"])
    return CalibrationCurve(**{**row, "points": points, "measured_at": datetime.fromisoformat(row["measured_at"])})


def judgments_to_json(judgments: Judgments) -> Json:
    """The two columns that they are kept in."""
    return {
        "queries": dict(judgments.queries),
        "grades": {query: dict(grades) for query, grades in judgments.grades.items()},
    }


def _fusion_from_json(row: Mapping[str, Any]) -> FusionSettings:
    return FusionSettings(**row)


def _rerank_from_json(row: Mapping[str, Any]) -> RerankSettings:
    return RerankSettings(**row)


def _tuned_from_json(row: Mapping[str, Any]) -> TuningRecord:
    gains = {name: MeasuredGain(**row[name]) for name in ("fusion", "rerank") if row.get(name) is not None}
    return TuningRecord(**{**row, **gains, "at": datetime.fromisoformat(row["at"])})


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "embedder": spec_from_json,
    "chunking": chunking_from_json,
    "fusion": _fusion_from_json,
    "rerank": _rerank_from_json,
    "tuned": _tuned_from_json,
    "indexed": tuple,
}
"""The settings that JSON holds in another form."""
