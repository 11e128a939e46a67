"""A reranker out of an adapter: the bundled encoder, a random adapter on it, and the way to probabilities."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.embedder.models import source
from service.embedder.reranker import adapter
from tests.integration.test_reranker import reranker

pytestmark = pytest.mark.model

QUERY = "who barks at night"
PASSAGES = ["a dog barks at night", "a cat purrs", "the bus is late today", "night " * 300]
RANK, LONGEST, SLOPE, OFFSET = 2, 128, 3.0, 5.0


def made(folder: Path, **differing: object) -> Path:
    backbone = source.folder(source.BUNDLED, None)
    torch.manual_seed(5)
    weights = {
        "classifier.weight": torch.randn(1, 384) * 0.2,
        "classifier.bias": torch.zeros(1),
        "bert.pooler.dense.weight": torch.randn(384, 384) * 0.1,
        "bert.pooler.dense.bias": torch.zeros(384),
    }
    for layer in range(6):
        name = f"bert.encoder.layer.{layer}.attention.self.query"
        weights |= {f"{name}.lora_A": torch.randn(RANK, 384), f"{name}.lora_B": torch.randn(384, RANK) * 0.05}
    own = {"rank": RANK, "alpha": 2 * RANK, "max_tokens": LONGEST, "slope": SLOPE, "offset": OFFSET}
    told = {"backbone": source.BUNDLED, "digests": adapter.digests(backbone), **own, **differing}
    adapter.save(folder, weights, adapter.AdapterDescription(**told))  # type: ignore[arg-type]
    return folder


def log_odds(folder: Path) -> np.ndarray:
    """By transformers alone, one pair at a time."""
    loaded = adapter.load_reranker(str(folder))
    logits = []
    for passage in PASSAGES:
        inputs = loaded.tokenizer(QUERY, passage, truncation="only_second", max_length=LONGEST, return_tensors="pt")
        with torch.inference_mode():
            logits.append(float(loaded.network(**inputs).logits))
    return SLOPE * np.array(logits) + OFFSET


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
async def test_scores_are_the_calibrated_probabilities_of_the_merged_model(tmp_path: Path, precision: str) -> None:
    folder = made(tmp_path / "mine")
    async with reranker(str(folder), precision=precision) as opened:
        reading = await opened.read(QUERY, PASSAGES)
    expected = 1 / (1 + np.exp(-log_odds(folder)))
    assert expected.std() > 0.05
    np.testing.assert_allclose(reading.scores, expected, atol=1e-4 if precision == "float32" else 0.15)
    assert reading.truncated == 1


async def test_the_bundled_one_knows_a_dog_that_barks() -> None:
    async with reranker(adapter.BUNDLED, precision="auto") as opened:
        scores = (await opened.read(QUERY, PASSAGES)).scores
    assert scores[0] > 0.5 > max(scores[1], scores[2])
