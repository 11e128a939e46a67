"""What is kept as JSON comes back as it was: from rows of older programs too, never half from those of newer ones."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from service.core.collections import CollectionSettings, EmbedderSpec, IndexSettings
from service.core.ids import VersionNumber
from service.core.versions import EmbedderIdentity, Judgments, PromotionCheck, PromotionEvidence
from service.store.postgres import json_records

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


def through_json(row: Any) -> Any:
    return json.loads(json.dumps(row))


def test_evidence_comes_back_as_it_was() -> None:
    assert json_records.evidence_from_json(through_json(json_records.evidence_to_json(EVIDENCE))) == EVIDENCE
    unjudged = PromotionEvidence(checks=(), gathered_at=AT)
    assert json_records.evidence_from_json(through_json(json_records.evidence_to_json(unjudged))) == unjudged


def test_an_index_comes_back_as_it_was() -> None:
    index = IndexSettings(m=8, ef_construction=200, storage="binary")
    assert json_records.index_from_json(through_json(json_records.index_to_json(index))) == index


def test_judgments_are_two_columns() -> None:
    judgments = Judgments(queries={"q": "text"}, grades={"q": {"d": 2}}, uploaded_at=AT)
    assert through_json(json_records.judgments_to_json(judgments)) == {
        "queries": {"q": "text"},
        "grades": {"q": {"d": 2}},
    }


def test_what_an_older_program_did_not_know_takes_its_default() -> None:
    assert json_records.index_from_json({}) == IndexSettings()
    assert json_records.evidence_from_json({"gathered_at": AT.isoformat()}) == PromotionEvidence(
        checks=(), gathered_at=AT
    )
    told = {"gathered_at": AT.isoformat(), "checks": [{"name": "warm", "passed": True, "detail": "all"}]}
    assert json_records.evidence_from_json(told).checks == (PromotionCheck(name="warm", passed=True, detail="all"),)
    old = asdict(CollectionSettings(embedder=EmbedderSpec(model="m")))
    del old["embedder"]["identity"]
    assert json_records.settings_from_json(through_json(old)) == CollectionSettings(embedder=EmbedderSpec(model="m"))


@pytest.mark.parametrize(
    ("read", "row"),
    [
        (json_records.index_from_json, {"m": 16, "quantiser": "newer"}),
        (json_records.evidence_from_json, {**json_records.evidence_to_json(EVIDENCE), "signed_by": "newer"}),
        (json_records.evidence_from_json, {"gathered_at": AT.isoformat(), "checks": [{"name": "warm", "weight": 1}]}),
        (json_records.settings_from_json, {"newer": 1}),
        (json_records.spec_from_json, {"newer": 1}),
        (json_records.chunking_from_json, {"newer": 1}),
        (
            json_records.identity_from_json,
            {**json_records.identity_to_json(EmbedderIdentity(parts={}, dimensions=1, max_tokens=1)), "newer": 1},
        ),
    ],
)
def test_what_a_newer_program_wrote_is_not_read_half(read: Any, row: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        read(through_json(row))
