"""The bundled embedder in ONNX Runtime: exported, measured, proven, and without PyTorch from the second load on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from service.core import metrics
from service.core.collections import EmbedderSpec
from service.core.ports.embedder import Encoder
from service.embedder.models import onnx_model, pytorch_process, source
from service.embedder.models.loader import ModelLoader
from service.embedder.models.onnx_choice import NETWORKS, TORCH
from service.embedder.models.onnx_model import OnnxModel
from service.embedder.models.transformer import TransformerModel
from tests.running import wait_for

pytestmark = [pytest.mark.model, pytest.mark.slow]

TEXTS = ["How to cancel a task?", "日本語の文章です。", "", "Größe, naïve", "a passage of some words. " * 40]
PROMPTED: dict[str, Any] = {"query_prompt": "query: ", "dimensions": 128}


def load(exports: Path | None, *, backend: str = "auto", precision: str = "auto", **spec: Any) -> Encoder:
    loader = ModelLoader(device="cpu", precision=precision, threads=1, backend=backend, exports=exports)
    return loader(EmbedderSpec(model=source.BUNDLED, **spec))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    load(folder)
    return folder


@pytest.fixture
def measured(exports: Path) -> Path:
    """The durations that were measured; `choose` changes them."""
    (path,) = exports.rglob("seconds-auto-*.json")
    return path


def choose(measured: Path, query: str, passages: str) -> None:
    fast = {"query": query, "passages": passages}
    seconds = {use: {name: 0.1 if name == best else 1.0 for name in (*NETWORKS, TORCH)} for use, best in fast.items()}
    measured.write_text(json.dumps(seconds))


def backends() -> dict[str, str]:
    samples = [sample for metric in metrics.MODEL_BACKEND.collect() for sample in metric.samples]
    ours = [one.labels for one in samples if one.value == 1 and one.labels["model"] == source.BUNDLED]
    return {labels["use"]: labels["backend"] for labels in ours}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("spec", [{}, PROMPTED], ids=["plain", "prompted"])
def test_vectors_and_identity_are_those_of_pytorch(
    exports: Path, measured: Path, name: str, spec: dict[str, Any]
) -> None:
    choose(measured, name, name)
    exported, expected = load(exports, **spec), load(None, precision="float32", **spec)
    assert backends() == {"query": name, "passages": name}
    assert exported.identity == expected.identity
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:3]):
        cosines = (exported.encode(texts, "query") * expected.encode(texts, "query")).sum(axis=1)
        assert cosines.min() > (0.99999 if name == "onnx_float32" else 0.998)


def test_a_later_load_needs_no_pytorch_and_measures_nothing(exports: Path, measured: Path) -> None:
    choose(measured, "onnx_int8", TORCH)
    code = f"""
import sys
from pathlib import Path
from service.core.collections import EmbedderSpec
from service.embedder.models import onnx_choice, source
from service.embedder.models.loader import ModelLoader
onnx_choice.subprocess = None
load = ModelLoader(device="cpu", precision="auto", threads=1, backend="auto", exports=Path({str(exports)!r}))
encoder = load(EmbedderSpec(model={source.BUNDLED!r}))
encoder.encode(["a query"], "query")
assert encoder.unchanged() and type(encoder._model).__name__ == "OnnxModel"
print(sorted({{"torch", "transformers", "sentence_transformers", "sklearn", "onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_pytorch_runs_long_passes_while_there_are_many(
    exports: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = set(psutil.Process().children())

    def children() -> set[psutil.Process]:
        return set(psutil.Process().children()) - others

    choose(measured, "onnx_int8", TORCH)
    encoder = load(exports)
    pytorch = encoder._model._pytorch  # type: ignore[attr-defined]
    passages = ["a passage of some words. " * 40]
    here = encoder.encode(passages, "document")
    assert backends() == {"query": "onnx_int8", "passages": TORCH}
    assert not children()  # one pass is not worth a start

    def start() -> psutil.Process:
        wait_for(lambda: len(encoder.encode(passages, "document")) and pytorch.running, "PyTorch for long passes")
        (child,) = children()
        return child

    monkeypatch.setattr(pytorch_process, "BUSY_SECONDS", 0.0)
    child = start()
    there = encoder.encode(passages, "document")
    assert 0.999 < (there * here).sum(axis=1).min() < 0.9999999
    child.kill()
    assert (encoder.encode(passages, "document") == here).all()
    wait_for(lambda: not children(), "the dead one is forgotten")
    monkeypatch.setattr(pytorch_process, "IDLE_SECONDS", 1.0)
    start()
    wait_for(lambda: not children(), "it ends when it has nothing to do")
    assert not pytorch.running


def test_the_slower_one_is_not_used(exports: Path, measured: Path) -> None:
    choose(measured, TORCH, TORCH)
    assert isinstance(load(exports)._model, TransformerModel)  # type: ignore[attr-defined]
    assert backends() == {"query": TORCH, "passages": TORCH}
    assert isinstance(load(exports, backend="onnx")._model, OnnxModel)  # type: ignore[attr-defined]


def test_a_network_that_gives_other_vectors_is_not_used(
    exports: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(measured, "onnx_int8", "onnx_int8")
    monkeypatch.setattr(onnx_model, "CANARY_COSINE", 0.99995)
    assert isinstance(load(exports)._model, OnnxModel)  # type: ignore[attr-defined]
    assert "onnx_int8" not in backends().values()
    monkeypatch.setattr(onnx_model, "CANARY_COSINE", 1.1)
    assert isinstance(load(exports)._model, TransformerModel)  # type: ignore[attr-defined]
    assert backends() == {"query": TORCH, "passages": TORCH}


def test_networks_that_are_damaged_or_gone_are_exported_anew(exports: Path, measured: Path) -> None:
    (damaged,), (gone,) = (exports.rglob(f"{name}.*.onnx") for name in ("onnx_int8", "onnx_float32"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    gone.unlink()
    for name in ("onnx_int8", "onnx_float32"):
        choose(measured, name, name)
        assert isinstance(load(exports)._model, OnnxModel)  # type: ignore[attr-defined]
        assert backends() == {"query": name, "passages": name}


@pytest.mark.parametrize("damage", ["folder", "process"])
def test_what_cannot_be_prepared_runs_in_pytorch(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if damage == "folder":
        (tmp_path / "exports").write_text("a file")
    else:
        monkeypatch.setattr(sys, "executable", "/bin/false")
    encoder = load(tmp_path / "exports")
    assert np.isfinite(encoder.encode(TEXTS, "document")).all()
    assert backends() == {"query": TORCH, "passages": TORCH}
    (record,) = [one for one in caplog.records if one.message == "the model runs in PyTorch"]
    assert record.reason  # type: ignore[attr-defined]
