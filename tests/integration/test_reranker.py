"""A published cross-encoder, a tiny one with random weights: what is tested is the way, not the taste."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from service.core.errors import ModelUnavailable, Overloaded
from service.embedder.models import loading
from service.embedder.models.onnx_choice import OnnxOptions
from service.embedder.models.scheduler import PassScheduler
from service.embedder.models.text_tokenizer import Tokens
from service.embedder.reranker import onnx_cross_encoder, onnx_prepare
from service.embedder.reranker.cross_encoder import PackedCrossEncoder
from service.embedder.reranker.reranker import CrossEncoderReranker

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
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")},
    ).save_pretrained(folder)
    torch.manual_seed(7)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shape |= {"vocab_size": len(vocabulary), "max_position_embeddings": 64, "num_labels": labels}
    config = BertConfig(initializer_range=0.4, **shape)  # the usual 0.02 gives the same score to everything
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("reranker"))


Backend = dict[str, Any]


@pytest.fixture(scope="module")
def exports(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as ONNX Runtime reads it."""
    root = tmp_path_factory.mktemp("exports")
    digest = onnx_cross_encoder.digest(str(folder))
    paths = {"name": str(folder), "folder": str(folder), "root": str(root), "digest": digest}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_prepare, "TRIAL_SECONDS", 0.0)
        for precision in ("float32", "auto"):
            options = OnnxOptions(**paths, backend="auto", precision=precision, threads=0)
            with options.kept.locked():
                onnx_prepare.prepare(options)
    return root


@pytest.fixture(params=["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "torch":
        return {}
    return {"backend": "onnx", "exports": request.getfixturevalue("exports")}


def expected(folder: Path) -> np.ndarray:
    library = CrossEncoder(str(folder), device="cpu")
    scores: np.ndarray = library.predict([(QUERY, passage) for passage in PASSAGES], activation_fn=torch.nn.Sigmoid())
    return scores


@asynccontextmanager
async def reranker(model: str, most_waiting: int = 4096, **settings: Any) -> AsyncIterator[CrossEncoderReranker]:
    scheduler = PassScheduler(most_waiting=most_waiting)
    try:
        yield CrossEncoderReranker(model, scheduler, **{"device": "cpu", "precision": "float32", **settings})
    finally:
        await scheduler.close()


@contextmanager
def watched_passes(then: Callable[[int], None] = lambda number: None) -> Iterator[list[list[int]]]:
    """The lengths of the pairs of each pass; `then` is called with the number of each before it."""
    passes: list[list[int]] = []
    forward = PackedCrossEncoder.forward

    def watched(self: PackedCrossEncoder, encodings: Sequence[Tokens]) -> Any:
        passes.append(list(map(len, encodings)))
        then(len(passes))
        return forward(self, encodings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedCrossEncoder, "forward", watched)
        yield passes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
async def test_agreement_with_the_library(folder: Path, backend: Backend, precision: str) -> None:
    async with reranker(str(folder), precision=precision, **backend) as opened:
        scores = np.array((await opened.read(QUERY, PASSAGES)).scores)
    assert scores.std() > 0.05
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(scores, expected(folder), atol=1e-4 if precision == "float32" else 0.1)


@pytest.mark.slow
async def test_in_eight_bits_scores_are_close_and_depend_on_no_other_passage(
    folder: Path, exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_cross_encoder, "PROOF_ERROR", 1.0)  # it knows no word of the canary texts
    for file in exports.rglob("seconds-auto-*.json"):
        file.write_text(json.dumps({"pairs": {"onnx_int8": 0.1, "onnx_float32": 1.0, "torch": 1.0}}))
    async with reranker(str(folder), precision="auto", backend="auto", exports=exports) as opened:
        together = np.array((await opened.read(QUERY, PASSAGES)).scores)
        alone = [(await opened.read(QUERY, [passage])).scores[0] for passage in PASSAGES]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    difference = np.abs(together - expected(folder)).max()
    assert 1e-4 < difference < 0.1


async def test_in_bfloat16_different_passages_have_different_scores(folder: Path) -> None:
    distinct = [passage for passage in dict.fromkeys(PASSAGES) if passage]
    async with reranker(str(folder), precision="bfloat16") as opened:
        assert len(set((await opened.read(QUERY, distinct)).scores)) == len(distinct)


async def test_an_activation_in_the_configuration_changes_nothing(folder: Path, tmp_path: Path) -> None:
    other = save(tmp_path)
    configuration = json.loads((other / "config.json").read_text())
    configuration["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (other / "config.json").write_text(json.dumps(configuration))
    async with reranker(str(other)) as opened:
        np.testing.assert_allclose((await opened.read(QUERY, PASSAGES)).scores, expected(folder), atol=1e-4)


async def test_passes_keep_the_budget_and_cost_little_padding(folder: Path) -> None:
    with watched_passes() as passes:
        async with reranker(str(folder), batch_tokens=256) as opened:
            assert len((await opened.read(QUERY, PASSAGES)).scores) == len(PASSAGES)
    assert len(passes) > 2
    assert max(max(lengths) * len(lengths) for lengths in passes) <= 256
    assert sum(max(lengths) * len(lengths) for lengths in passes) < 1.2 * sum(map(sum, passes))


async def test_a_pair_that_is_too_long_loses_the_end_of_its_passage_and_is_counted(
    folder: Path, backend: Backend
) -> None:
    before = REGISTRY.get_sample_value("azimuth_rerank_truncated_pairs_total") or 0.0
    whole, longer = "sorted list " * 10, "sorted list " * 10 + "key " * 100
    long_query = "how to sort a list by key " * 3  # 18 + 3 special tokens of the 64 that the model takes
    async with reranker(str(folder), **backend) as opened:
        reading = await opened.read(long_query, [whole, longer, longer + " cancel"])
        assert (await opened.read(QUERY, [whole])).truncated == 0
        kept = longer.split()[: 64 - 3 - len(long_query.split())]
        alone = await opened.read(long_query, [" ".join(kept)])
    assert reading.truncated == 2
    assert REGISTRY.get_sample_value("azimuth_rerank_truncated_pairs_total") == before + 2
    assert reading.scores[1] == pytest.approx(reading.scores[2], abs=1e-6)  # they differ only in what was cut
    assert alone.truncated == 0
    assert alone.scores[0] == pytest.approx(reading.scores[1], abs=1e-5)


ROOM = 64 - 3
"""Tokens of query and passage together, of which the passage keeps a quarter."""
LONG = "function " * 200


@pytest.mark.parametrize("words", [30, 45, ROOM - ROOM // 4])
async def test_the_passage_is_cut_before_the_query(folder: Path, backend: Backend, words: int) -> None:
    query = " ".join((WORDS * 10)[:words])
    async with reranker(str(folder), **backend) as opened:
        reading = await opened.read(query, [LONG, "sorted list"])
        same = await opened.read(query, ["function " * (ROOM - words), "sorted list"])
    assert (reading.query_share, reading.truncated) == (1.0, 1)
    assert (same.query_share, same.truncated) == (1.0, 0)
    np.testing.assert_allclose(reading.scores, same.scores, atol=1e-5)


@pytest.mark.parametrize(("passage", "left"), [(LONG, ROOM - ROOM // 4), ("python list", ROOM - 2), ("", ROOM)])
async def test_a_query_that_does_not_fit_keeps_its_beginning_and_its_end(
    folder: Path, backend: Backend, passage: str, left: int
) -> None:
    words = (WORDS * 80)[:1_000]
    ends = " ".join(words[: left - left // 2] + words[-(left // 2) :])
    async with reranker(str(folder), **backend) as opened:
        reading = await opened.read(" ".join(words), [passage])
        same = await opened.read(ends, [passage])
        assert reading.query_share == pytest.approx(left / 1_000)
        assert reading.scores == pytest.approx(same.scores, abs=1e-5)
        assert same.query_share == 1
        # A score depends on no other passage.
        beside = await opened.read(" ".join(words), [LONG, passage, "sorted"])
        assert beside.scores[1] == pytest.approx(reading.scores[0], abs=1e-5)
        assert beside.query_share == pytest.approx((ROOM - ROOM // 4) / 1_000)


@pytest.mark.parametrize("text", ["a" * 10_000, "東京都" * 3_000, "É-x_" * 2_500, "🙂 " * 3_000, "x\n" * 5_000])
async def test_any_long_query_is_read_and_reported(text: str) -> None:
    async with reranker("azimuth-minilm-l6", precision="float32") as opened:
        reading = await opened.read(text, ["a dog barks", "stone " * 400])
    assert len(reading.scores) == 2
    assert reading.query_share <= 1


async def test_many_callers_at_once(folder: Path, backend: Backend) -> None:
    async with reranker(str(folder), **backend) as opened:
        answers = await asyncio.gather(*(opened.read(QUERY, PASSAGES) for _ in range(4)))
        assert (await opened.read(QUERY, [])).scores == ()
    for answer in answers:
        np.testing.assert_allclose(answer.scores, expected(folder), atol=1e-4)


async def test_a_caller_who_leaves_takes_the_remaining_passes_along(folder: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        if number == 1:
            began.set()
            assert go_on.wait(20)

    with watched_passes(hold) as passes:
        async with reranker(str(folder), batch_tokens=64) as opened:
            leaves = asyncio.create_task(opened.read(QUERY, ["sorted " * 50] * 20))
            never_began = asyncio.create_task(opened.read(QUERY, PASSAGES))
            await asyncio.to_thread(began.wait, 20)
            leaves.cancel()
            never_began.cancel()
            await asyncio.gather(leaves, never_began, return_exceptions=True)
            go_on.set()
            stays = await opened.read(QUERY, ["python"])
    assert len(stays.scores) == 1
    assert [len(lengths) for lengths in passes] == [1, 1]


async def test_what_fails_fails_for_its_own_caller_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = PackedCrossEncoder.forward

    def fail(self: PackedCrossEncoder, pairs: Sequence[Tokens]) -> Any:
        if max(map(len, pairs)) > 15:
            raise RuntimeError("out of luck")
        return forward(self, pairs)

    monkeypatch.setattr(PackedCrossEncoder, "forward", fail)
    async with reranker(str(folder)) as opened:
        first = asyncio.create_task(opened.read(QUERY, ["python " * 20]))
        second = asyncio.create_task(opened.read(QUERY, ["python"]))
        with pytest.raises(ModelUnavailable, match="out of luck"):
            await first
        assert len((await second).scores) == 1


async def test_a_number_that_is_none_is_no_score(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedCrossEncoder, "forward", lambda _, pairs: np.full(len(pairs), np.nan, np.float32))
    async with reranker(str(folder)) as opened:
        with pytest.raises(ModelUnavailable, match="no usable number"):
            await opened.read(QUERY, PASSAGES)


async def test_too_much_waiting_is_refused_and_one_large_request_is_not(folder: Path) -> None:
    async with reranker(str(folder), most_waiting=5) as opened:
        large = asyncio.create_task(opened.read(QUERY, PASSAGES))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="wait for the reranker"):
            await opened.read(QUERY, ["python"])
        assert len((await large).scores) == len(PASSAGES)
        assert len((await opened.read(QUERY, ["python"])).scores) == 1


async def test_a_warm_reranker_has_run_passes_before_it_is_asked(folder: Path) -> None:
    before = REGISTRY.get_sample_value("azimuth_rerank_pass_seconds_count") or 0.0
    async with reranker(str(folder)) as opened:
        await opened.warm()
    assert (REGISTRY.get_sample_value("azimuth_rerank_pass_seconds_count") or 0.0) >= before + 2


async def test_a_missing_model_says_so_and_can_come_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reranker(str(tmp_path / "later")) as opened:
        await opened.warm()
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="no folder"):
                await opened.read(QUERY, PASSAGES)
        save(tmp_path / "later")
        monkeypatch.setattr(loading, "RETRY_SECONDS", 0.0)
        assert len((await opened.read(QUERY, PASSAGES)).scores) == len(PASSAGES)


async def test_any_error_of_a_load_is_remembered_for_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []

    def damaged(self: PackedCrossEncoder, *args: Any, **settings: Any) -> None:
        loads.append(args)
        raise ValueError("header too large")

    monkeypatch.setattr(PackedCrossEncoder, "__init__", damaged)
    async with reranker(str(folder)) as opened:
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="header too large"):
                await opened.read(QUERY, PASSAGES)
    assert len(loads) == 1


async def test_models_that_give_several_numbers_are_refused(tmp_path: Path) -> None:
    async with reranker(str(save(tmp_path, labels=3))) as opened:
        with pytest.raises(ModelUnavailable, match="gives 3 numbers"):
            await opened.read(QUERY, PASSAGES)
