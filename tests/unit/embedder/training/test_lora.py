"""What is learnt of a model, and the tokens that are added to it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from service.embedder.training.lora import Adaptation
from service.embedder.training.trainable_model import TrainableModel
from service.embedder.training.vocabulary import add_tokens, unknown_names
from tests.small import transformer

pytestmark = pytest.mark.slow

TEXTS = ["Quillfeather draws 20 mA.", "What does the XR-4410b draw?", "words that every tokenizer knows", ""]
WORDS = ["quillfeather", "xr-4410b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformer(tmp_path_factory.mktemp("models") / "small", prompts={"query": "find: "})


@pytest.fixture
def chain(folder: Path) -> TrainableModel:
    return TrainableModel(folder, device="cpu", precision="float32", longest=32)


def disturbed(adaptation: Adaptation) -> Adaptation:
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in adaptation.trained.values():
            weights.add_(0.1 * torch.randn_like(weights))
    return adaptation


def test_names_that_are_broken_up_are_found_those_first_that_cost_most(chain: TrainableModel) -> None:
    texts = ["The Quillfeather is well-known, says Quillfeather.", "XR-4410b and/or QUILLFEATHER", "xr-4410B"]
    texts += ["XR-4410b", "Quillfeather", "Quillfeather", "Zyxomma once", "12345678 98765432", "12345678", "12345678"]
    assert unknown_names(texts, chain.tokenizer, 10) == ["quillfeather", "xr-4410b"]
    assert unknown_names(texts, chain.tokenizer, 1) == ["quillfeather"]
    assert unknown_names(texts, chain.tokenizer, 0) == []


def test_what_is_written_small_is_language_and_no_name(chain: TrainableModel) -> None:
    assert len(chain.tokenizer.tokenize("calibration")) > 2
    assert unknown_names(["Calibration"] * 3, chain.tokenizer, 10) == ["calibration"]
    assert unknown_names(["Calibration", "calibration", "calibration"], chain.tokenizer, 10) == []
    assert unknown_names(["rfc9457 applies"] * 3, chain.tokenizer, 10) == ["rfc9457"]


def test_a_new_row_is_the_mean_of_its_pieces(chain: TrainableModel) -> None:
    before = chain.transformer.get_input_embeddings().weight.detach().clone()  # type: ignore[operator]
    pieces = [chain.tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS]
    assert add_tokens(chain, WORDS) == 2
    after = chain.transformer.get_input_embeddings().weight.detach()  # type: ignore[operator]
    assert torch.equal(after[:-2], before)
    assert torch.allclose(after[-2:], torch.stack([before[ids].mean(dim=0) for ids in pieces]))
    assert all(len(ids) > 2 for ids in pieces)
    ids = chain.tokenizer("Is QuillFeather an XR-4410B?", add_special_tokens=False)["input_ids"]
    assert [one for one in ids if one >= len(before)] == [len(before), len(before) + 1]


def test_words_are_added_once_and_not_within_others(chain: TrainableModel) -> None:
    add_tokens(chain, WORDS)
    assert add_tokens(chain, WORDS) == 0
    assert not set(chain.tokenizer.tokenize("quillfeathers")) & set(WORDS)


def test_the_tokenizer_keeps_them_when_it_is_saved(chain: TrainableModel, tmp_path: Path) -> None:
    add_tokens(chain, WORDS)
    chain.save(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.is_fast
    assert again.tokenize("a Quillfeather") == ["a", "quillfeather"]
    loaded = TrainableModel(tmp_path, device="cpu", precision="float32", longest=32)
    assert np.allclose(loaded.vectors(TEXTS, "query"), chain.vectors(TEXTS, "query"), atol=1e-6)


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("words", [WORDS, []])
def test_the_plain_model_computes_what_was_learnt(chain: TrainableModel, rank: int | None, words: list[str]) -> None:
    adaptation = disturbed(Adaptation(chain, rank=rank, added=add_tokens(chain, words)))
    learnt = adaptation.model.vectors(TEXTS, "document")
    before = chain.vectors(TEXTS, "document")
    chain.load(adaptation.state())
    assert np.abs(chain.vectors(TEXTS, "document") - learnt).max() < 1e-5
    assert np.abs(before - learnt).max() > 1e-3


def test_half_of_it_lies_halfway_and_of_the_vocabulary_only_new_rows_are_learnt(chain: TrainableModel) -> None:
    adaptation = disturbed(Adaptation(chain, rank=4, added=add_tokens(chain, WORDS)))
    none, half, whole = (adaptation.state(share) for share in (0.0, 0.5, 1.0))
    assert all(torch.equal(none[name], tensor) for name, tensor in chain.state().items())
    assert all(
        torch.allclose(half[name], (none[name] + whole[name]) / 2) for name in none if none[name].is_floating_point()
    )
    moved = {name for name in none if not torch.equal(none[name], whole[name])}
    assert not [name for name in moved if "pooler" in name or "LayerNorm" in name]
    before, after = (weights["embeddings.word_embeddings.weight"] for weights in (chain.state(), whole))
    assert torch.equal(after[:-2], before[:-2])
    assert not torch.equal(after[-2:], before[-2:])


def test_what_it_was_made_of_stays_as_it_is(chain: TrainableModel) -> None:
    before = chain.vectors(TEXTS, "query")
    disturbed(Adaptation(chain, rank=None, added=0))
    assert np.array_equal(chain.vectors(TEXTS, "query"), before)


def test_a_snapshot_brings_back_what_was_learnt(chain: TrainableModel) -> None:
    adaptation = Adaptation(chain, rank=4, added=0)
    kept, before = adaptation.snapshot(), adaptation.model.vectors(TEXTS, "query")
    disturbed(adaptation)
    assert not np.allclose(adaptation.model.vectors(TEXTS, "query"), before, atol=1e-3)
    adaptation.restore(kept)
    assert np.array_equal(adaptation.model.vectors(TEXTS, "query"), before)


def test_prompts_of_both_roles_are_the_model_s_own_unless_told(folder: Path, tmp_path: Path) -> None:
    chain = TrainableModel(folder, device="cpu", precision="float32", prompts={"document": "text: ", "query": ""})
    assert chain.prompts == {"query": "find: ", "document": "text: "}
    chain.save(tmp_path)
    assert TrainableModel(tmp_path, device="cpu").prompts == chain.prompts
    bare = TrainableModel(folder, device="cpu", precision="float32")
    assert np.allclose(bare.vectors(["text: a pump"], "document"), chain.vectors(["a pump"], "document"), atol=1e-6)
