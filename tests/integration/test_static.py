"""Static models agree with the library: alone, normalised, behind a dense layer, with a shorter limit."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from service.core.collections import ChunkingSettings, EmbedderSpec
from service.core.errors import ModelUnavailable
from service.core.ports.embedder import Encoder
from service.core.vector_math import finite
from service.embedder.models.loader import ModelLoader
from service.embedder.models.static_model import MAX_TOKENS
from service.embedder.worker.document_chunker import chunk_documents
from tests.feed import stored_document
from tests.integration.test_encoder import TEXTS
from tests.models import static_model

pytestmark = pytest.mark.model


def load(folder: Path, **settings: Any) -> Encoder:
    return ModelLoader(device="cpu", precision="auto", threads=1)(EmbedderSpec(model=str(folder), **settings))


def test_weights_stay_in_memory_as_long_as_an_encoder_uses_them(tmp_path: Path) -> None:
    loader = ModelLoader(device="cpu", precision="auto", threads=1)
    spec = EmbedderSpec(model=str(static_model(tmp_path)))
    first, second = loader(spec), loader(replace(spec, query_prompt="q: "))
    assert len(loader._models) == 1
    del first
    gc.collect()
    assert len(loader._models) == 1
    del second
    gc.collect()
    assert not loader._models


@pytest.mark.parametrize("shape", [{}, {"normalize": False}, {"dense": 96}, {"longest": 40}], ids=str)
def test_agreement_with_the_library(tmp_path: Path, shape: dict[str, Any]) -> None:
    encoder = load(static_model(tmp_path, **shape))
    texts = [text for text in TEXTS if shape.get("longest") or encoder.lengths([text], "document")[0] <= MAX_TOKENS]
    library = SentenceTransformer(str(tmp_path), device="cpu")
    expected = library.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    vectors = encoder.encode(texts, "document")
    assert encoder.identity.dimensions == expected.shape[1]
    usable = finite(expected)
    assert usable.sum() >= len(texts) - 3  # the empty ones, unless a layer with a bias comes after
    np.testing.assert_array_equal(finite(vectors), usable)
    assert (vectors * expected).sum(axis=1)[usable].min() >= 0.99999


def test_prompts_are_those_of_the_library(tmp_path: Path) -> None:
    prompts = {"query": "search: ", "document": "passage: "}
    static_model(tmp_path)
    library = SentenceTransformer(str(tmp_path), device="cpu", prompts=prompts)
    library.save(str(tmp_path / "prompted"), create_model_card=False)
    encoder = load(tmp_path / "prompted")
    for role in ("query", "document"):
        expected = library.encode(["A tall tower."], prompt_name=role, normalize_embeddings=True)
        assert encoder.encode(["A tall tower."], role)[0] @ expected[0] >= 0.99999
    assert (encoder.identity.parts["query_prompt"], encoder.overhead("query")) == ("search: ", 2)


def test_a_text_without_tokens_has_no_vector_and_spoils_nobody_elses(tmp_path: Path) -> None:
    encoder = load(static_model(tmp_path))
    vectors = encoder.encode(["", "a tower", " \n"], "document")
    assert finite(vectors).tolist() == [False, True, False]
    assert not encoder.encode(["", ""], "document").any()


def test_a_longer_text_counts_up_to_the_limit_and_passages_keep_to_it(tmp_path: Path) -> None:
    encoder = load(static_model(tmp_path))
    assert encoder.identity.max_tokens == MAX_TOKENS
    sentence = "The tower stands by the river. "
    (chunks,) = chunk_documents(encoder, [stored_document("d", sentence * 300)], ChunkingSettings())
    assert len(chunks) > 1
    assert max(part.tokens for part in chunks) <= MAX_TOKENS
    (short,) = chunk_documents(encoder, [stored_document("d", sentence * 30)], ChunkingSettings(max_tokens=64))
    assert 32 < max(part.tokens for part in short) <= 64
    assert load(static_model(tmp_path / "short", longest=40)).identity.max_tokens == 40


def test_the_fingerprint_covers_rows_tokenizer_and_modules(tmp_path: Path) -> None:
    plain = load(static_model(tmp_path / "plain")).identity
    assert load(static_model(tmp_path / "again")).identity == plain
    for shape, differing in (
        ({"normalize": False}, ("modules",)),
        ({"dense": 384}, ("modules", "weights")),
        ({"longest": 40}, ("max_tokens", "tokenizer")),
    ):
        other = load(static_model(tmp_path / "-".join(shape), **shape)).identity
        assert plain.differing(other) == differing


def test_a_chain_that_does_not_fit_says_so(tmp_path: Path) -> None:
    static_model(tmp_path, dense=96)
    dense = next(tmp_path.glob("*_Dense"))
    (dense / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        load(tmp_path)
