"""The cross-encoder, on a tiny one with random weights: what is tested is the way, not the taste."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from service.embedder import reranker as module
from service.embedder.reranker import CrossEncoderReranker
from service.errors import ModelUnavailable

WORDS = re.findall(r"\w+", "how to sort a list by key cancel task after timeout python the function returns sorted")
QUERY = "how to sort a list"
PASSAGES = [
    "sorted returns a list by key",
    "cancel the task after timeout",
    "python",
    "",
    "the function returns " * 60,
    *(" ".join(WORDS[: n % len(WORDS) + 1]) for n in range(40)),
]


def save(folder: Path, labels: int = 1) -> Path:
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.4,  # the usual 0.02 gives the same score to everything
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("reranker"))


def expected(folder: Path) -> np.ndarray:
    library = CrossEncoder(str(folder), device="cpu")
    scores: np.ndarray = library.predict([(QUERY, passage) for passage in PASSAGES], activation_fn=torch.nn.Sigmoid())
    return scores


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
async def test_agreement_with_the_library(folder: Path, precision: str) -> None:
    reranker = CrossEncoderReranker(str(folder), device="cpu", precision=precision)
    scores = np.array(await reranker.score(QUERY, PASSAGES))
    assert scores.std() > 0.05
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(scores, expected(folder), atol=1e-4 if precision == "float32" else 0.1)
    reranker.close()


async def test_an_activation_in_the_configuration_changes_nothing(folder: Path, tmp_path: Path) -> None:
    other = save(tmp_path)
    configuration = json.loads((other / "config.json").read_text())
    configuration["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (other / "config.json").write_text(json.dumps(configuration))
    reranker = CrossEncoderReranker(str(other), device="cpu", precision="float32")
    np.testing.assert_allclose(await reranker.score(QUERY, PASSAGES), expected(folder), atol=1e-4)
    reranker.close()


async def test_passes_keep_the_budget(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    predict = CrossEncoder.predict

    def watched(self: CrossEncoder, inputs: list[tuple[str, str]], **arguments: Any) -> Any:
        tokens = self.tokenizer(*map(list, zip(*inputs, strict=True)), truncation=True, max_length=64)["input_ids"]
        sizes.append(max(map(len, tokens)) * len(tokens))
        return predict(self, inputs, **arguments)

    monkeypatch.setattr(CrossEncoder, "predict", watched)
    reranker = CrossEncoderReranker(str(folder), device="cpu", batch_tokens=128)
    assert len(await reranker.score(QUERY, PASSAGES)) == len(PASSAGES)
    assert len(sizes) > 3
    assert max(sizes) <= 128
    reranker.close()


async def test_many_callers_at_once(folder: Path) -> None:
    reranker = CrossEncoderReranker(str(folder), device="cpu", precision="float32")
    answers = await asyncio.gather(*(reranker.score(QUERY, PASSAGES) for _ in range(4)))
    for answer in answers:
        np.testing.assert_allclose(answer, expected(folder), atol=1e-4)
    assert await reranker.score(QUERY, []) == []
    reranker.close()


async def test_a_missing_model_says_so_and_can_come_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = CrossEncoderReranker(str(tmp_path / "later"), device="cpu")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="no folder"):
            await reranker.score(QUERY, PASSAGES)
    save(tmp_path / "later")
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    assert len(await reranker.score(QUERY, PASSAGES)) == len(PASSAGES)
    reranker.close()


async def test_models_that_give_several_numbers_are_refused(tmp_path: Path) -> None:
    reranker = CrossEncoderReranker(str(save(tmp_path, labels=3)), device="cpu")
    with pytest.raises(ModelUnavailable, match="gives 3 numbers"):
        await reranker.score(QUERY, PASSAGES)
    reranker.close()
