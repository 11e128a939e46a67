"""The bundled reranker in ONNX Runtime: exported, measured, proven, and without PyTorch from the second load on."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.core import metrics
from service.embedder.models.onnx_choice import NETWORKS, TORCH
from service.embedder.reranker import onnx_cross_encoder
from service.embedder.reranker.adapter import BUNDLED
from service.embedder.reranker.onnx_cross_encoder import OnnxCrossEncoder
from tests.integration.test_reranker import reranker

pytestmark = [pytest.mark.model, pytest.mark.slow]

QUERY = "who barks at night"
PASSAGES = ["a dog barks at night", "a cat purrs", "Hunde bellen nachts.", "", "the bus is late today. " * 60]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    asyncio.run(log_odds(folder))
    return folder


async def log_odds(exports: Path | None, backend: str = "auto", precision: str = "auto") -> np.ndarray:
    async with reranker(BUNDLED, precision=precision, threads=1, backend=backend, exports=exports) as opened:
        scores = np.array((await opened.read(QUERY, PASSAGES)).scores)
        assert isinstance(opened._model, OnnxCrossEncoder) == (runs() != TORCH)
    found: np.ndarray = np.log(scores / (1 - scores))
    return found


def runs() -> str:
    samples = [sample for metric in metrics.MODEL_BACKEND.collect() for sample in metric.samples]
    ours = [one.labels for one in samples if one.value == 1 and one.labels["model"] == BUNDLED]
    assert [labels["use"] for labels in ours] == ["pairs"]
    return str(ours[0]["backend"])


def choose(exports: Path, name: str) -> None:
    """As if this one were the fastest."""
    (measured,) = exports.rglob("seconds-auto-*.json")
    seconds = {one: 0.1 if one == name else 1.0 for one in (*NETWORKS, TORCH)}
    measured.write_text(json.dumps({"pairs": seconds}))


async def test_what_is_fastest_runs_and_ranks_as_pytorch_does(exports: Path) -> None:
    choose(exports, TORCH)
    await log_odds(exports)
    assert runs() == TORCH
    expected = await log_odds(None, precision="float32")
    for name, tolerance in zip(NETWORKS, (1e-3, 0.6), strict=True):
        choose(exports, name)
        found = await log_odds(exports)
        assert runs() == name
        assert np.abs(found - expected).max() < tolerance
        assert np.corrcoef(found, expected)[0, 1] > 0.995


async def test_a_later_load_needs_no_pytorch_and_measures_nothing(exports: Path) -> None:
    choose(exports, "onnx_int8")
    code = f"""
import asyncio, sys
from pathlib import Path
from service.embedder.models import onnx_choice
from service.embedder.models.scheduler import PassScheduler
from service.embedder.reranker.reranker import CrossEncoderReranker
onnx_choice.subprocess = None
async def read():
    scheduler = PassScheduler()
    exports = Path({str(exports)!r})
    reranker = CrossEncoderReranker({BUNDLED!r}, scheduler, device="cpu", threads=1, backend="auto", exports=exports)
    await reranker.read("a query", ["a passage"])
    await scheduler.close()
    assert type(reranker._model).__name__ == "OnnxCrossEncoder"
asyncio.run(read())
print(sorted({{"torch", "transformers", "sentence_transformers", "sklearn", "onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


async def test_a_network_that_gives_another_order_is_not_used(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(exports, "onnx_int8")
    monkeypatch.setattr(onnx_cross_encoder, "PROOF_ERROR", 0.001)
    await log_odds(exports, backend="onnx")
    assert runs() == "onnx_float32"
    monkeypatch.setattr(onnx_cross_encoder, "PROOF_ERROR", -1.0)
    await log_odds(exports, backend="onnx")
    assert runs() == TORCH


async def test_what_cannot_be_prepared_runs_in_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert np.isfinite(await log_odds(tmp_path)).all()
    assert runs() == TORCH
    (record,) = [one for one in caplog.records if one.message == "the model runs in PyTorch"]
    assert record.reason  # type: ignore[attr-defined]
