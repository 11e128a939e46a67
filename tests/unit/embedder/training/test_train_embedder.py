"""One adaptation from documents to a model that serves, on a transformer that learns in seconds."""

import json
import random
import sys
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests import codenames, company
from service.cli import app
from service.client.http_client import Client
from service.core.collections import EmbedderSpec
from service.core.errors import Misconfigured, ModelUnavailable
from service.embedder.models.loader import ModelLoader
from service.embedder.training import embedder_data, train_embedder
from service.embedder.training.biencoder_training import BiEncoderRecipe, BiEncoderReport, BiEncoderTraining
from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample
from service.embedder.training.held_out import HeldOut
from service.embedder.training.teacher_labels import Teacher
from service.embedder.training.train_embedder import TrainingSubject
from service.embedder.training.trainable_model import TrainableModel
from service.embedder.training.training_queries import TrainingQuery, read_documents
from service.evaluation import beir
from tests.commands import azimuth
from tests.models import static_model
from tests.small import transformer

pytestmark = pytest.mark.slow

RECIPE = BiEncoderRecipe(
    epochs=3.0, minutes=60.0, seed=3, rank=None, words=50, batch=16, rate=1e-3, looks=3, patience=3
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collections") / "codenames"
    codenames.write(codenames.collection(20, seed=1), folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformer(tmp_path_factory.mktemp("models") / "small")


@dataclass(frozen=True)
class Case:
    """One adaptation of the small model to the collection."""

    collection: Path
    model: Path
    out: Path

    def training(self, **recipe: Any) -> tuple[BiEncoderTraining, TrainableModel]:
        chain = TrainableModel(self.model, device="cpu", precision="float32", longest=48)
        judged = {"train": beir.judgments(self.collection, "train")}
        passages, found = embedder_data.gather(
            read_documents(self.collection), judged, ["train"], chain, most=1000, seed=3
        )
        return BiEncoderTraining(chain, passages, found, replace(RECIPE, **recipe)), chain

    def adapt(
        self, *, judged: bool = True, epochs: float = 2.0, rank: int | None = None, **more: Any
    ) -> BiEncoderReport:
        subject = TrainingSubject(
            name="codenames",
            documents=read_documents(self.collection),
            judgments=self.collection if judged else None,
            licence="CC0",
        )
        recipe = replace(RECIPE, epochs=epochs, rank=rank)
        options = {"longest": 48, "device": "cpu", "precision": "float32", **more}
        return train_embedder.train(subject, str(self.model), self.out, recipe, **options)


@pytest.fixture
def case(collection: Path, model: Path, tmp_path: Path) -> Case:
    return Case(collection, model, tmp_path / "adapted")


def falls(losses: list[float]) -> bool:
    tenth = max(1, len(losses) // 10)
    return sum(losses[-tenth:]) < 0.9 * sum(losses[:tenth])


def test_it_learns_by_lora(case: Case) -> None:
    """Weights at random hold little that differences of low rank could bring out, but for what it has read."""
    run, _ = case.training(rank=8, rate=2e-2)
    assert falls(run.run().losses)


def test_it_learns_what_it_has_not_read(case: Case) -> None:
    run, _ = case.training()
    report = run.run()
    assert falls(report.losses)
    assert report.better
    assert report.gain.mean == pytest.approx(report.chosen.mean - report.candidates[0].mean)
    assert report.chosen.mean == max(candidate.mean for candidate in report.candidates)
    assert {"as it was", "50% of it", "75% of it"} < {candidate.name for candidate in report.candidates}
    assert report.steps == len(report.losses)


def test_the_same_seed_gives_the_same_model(case: Case) -> None:
    first, one = case.training(epochs=1.0)
    second, other = case.training(epochs=1.0)
    assert first.run().losses == second.run().losses
    assert np.array_equal(one.vectors(["Quillfeather"], "query"), other.vectors(["Quillfeather"], "query"))
    third, _ = case.training(epochs=1.0, seed=4)
    assert third.run().losses != first.run().losses


def test_what_is_handed_over_is_what_was_measured(case: Case, monkeypatch: Any) -> None:
    kept: list[HeldOut] = []
    scores = HeldOut.scores

    def remember(self: HeldOut, chain: TrainableModel) -> list[float]:
        kept.append(self)
        return scores(self, chain)

    monkeypatch.setattr(HeldOut, "scores", remember)
    run, chain = case.training()
    report = run.run()
    assert scores(kept[0], chain) == pytest.approx(report.chosen.scores)


def test_it_ends_when_looks_are_no_better_and_keeps_the_best(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    #            as it was, looks of the run, then the mixtures
    expected = [0.1, 0.3, 0.5, 0.4, 0.2, 0.0, 0.0]
    told = iter(expected)
    at_best: list[Any] = []

    def scores(self: HeldOut, chain: TrainableModel) -> list[float]:
        score = next(told)
        if score == 0.5:
            at_best.append(chain.vectors(["Which fuse?"], "query"))
        return [score] * len(self)

    monkeypatch.setattr(HeldOut, "scores", scores)
    run, chain = case.training(looks=10, patience=2)
    report = run.run()
    assert [candidate.mean for candidate in report.candidates] == pytest.approx(expected)
    assert report.chosen.mean == pytest.approx(0.5)
    assert np.allclose(chain.vectors(["Which fuse?"], "query"), at_best[0], atol=1e-5)


def test_time_ends_a_run(case: Case) -> None:
    run, _ = case.training(epochs=1000.0, minutes=0.01)
    assert 1 <= run.run().steps < 1000


def test_it_serves_like_any_other_under_another_fingerprint(case: Case, tmp_path: Path) -> None:
    report = case.adapt()
    assert report.better
    load = ModelLoader(device="cpu", precision="float32", threads=1)
    before, after = (load(EmbedderSpec(model=str(folder))) for folder in (case.model, case.out))
    parts, others = before.identity.parts, after.identity.parts
    assert {name for name in parts if parts[name] != others[name]} == {"weights", "tokenizer", "modules"}
    assert before.identity.fingerprint != after.identity.fingerprint
    assert before.identity.max_tokens == after.identity.max_tokens == 96
    assert not np.allclose(before.encode(["a pump"], "query"), after.encode(["a pump"], "query"), atol=1e-2)
    assert not list(tmp_path.glob(".*"))


def test_its_card_says_what_it_was_made_of(case: Case) -> None:
    report = case.adapt(command="azimuth train embedder codenames")
    card = (case.out / "README.md").read_text("utf-8")
    record = json.loads((case.out / "training.json").read_text("utf-8"))
    for words in ("CC0", "azimuth train embedder codenames", "# adapted", "| seed | 3 |", f"{report.chosen.mean:.4f}"):
        assert words in card
    assert record["pairs"] == report.pairs
    assert record["candidates"]["as it was"] == pytest.approx(report.candidates[0].mean, abs=1e-4)
    assert record["words"] == report.words


def test_where_nothing_is_better_nothing_is_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeldOut, "scores", lambda self, chain: [0.5] * len(self))
    report = case.adapt(epochs=0.1)
    assert not report.better
    assert report.chosen.name == "as it was"
    assert not case.out.exists()


def test_judgments_come_before_titles_and_titles_before_text(collection: Path, tmp_path: Path) -> None:
    documents = [{"id": str(at), "title": "What is it?", "text": "It is."} for at in range(10)]
    bare = [{**document, "title": ""} for document in documents]
    assert train_embedder.default_part(TrainingSubject(name="c", documents=documents, judgments=collection)) == "train"
    assert train_embedder.default_part(TrainingSubject(name="c", documents=documents, judgments=tmp_path)) == "titles"
    assert train_embedder.default_part(TrainingSubject(name="c", documents=bare)) == "crops"


def test_documents_alone_are_enough(case: Case) -> None:
    messages: list[str] = []
    report = case.adapt(judged=False, epochs=1.0, parts=("crops",), teacher=None, notify=messages.append)
    assert set(report.pairs) == {"crops"}
    assert any("put aside" in message for message in messages)


class Reader:
    """A teacher that finds every wrong passage better than the answer."""

    def label(self, examples: list[MinedExample], *_: object) -> list[MinedExample]:
        return [replace(one, wrong=one.wrong[:1], logits=(0.0, 1.0)) if one.wrong else one for one in examples]


def test_a_teacher_has_a_say_in_what_is_wrong(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(teacher: object) -> list[float]:
        monkeypatch.setattr(train_embedder, "_teacher", lambda *_: teacher)
        out = case.out.with_name(str(id(teacher)))
        return replace(case, out=out).adapt(judged=False, epochs=0.2, parts=("crops",)).losses

    assert losses(Reader())[0] != losses(None)[0]


@pytest.mark.model
def test_the_reranker_that_ships_reads_what_nobody_judged() -> None:
    texts = ["A pump moves fluids through pipes.", "The museum opens at ten.", "Valves stop fluids."]
    passages = Passages(texts, texts, [0, 1, 2], ["", "", ""])
    guessed = TrainingQuery(text="what does a pump move", part="titles", right=(0,))
    judged, alone = MinedExample(replace(guessed, judged=True), 0, (1,)), MinedExample(guessed, 0, ())
    examples = [MinedExample(guessed, 0, (1, 2)), judged, alone]
    labelled = Teacher(device="cpu", precision="float32").label(examples, passages, 2, seed=1)
    assert labelled[1:] == examples[1:]
    assert labelled[0].logits is not None
    assert set(labelled[0].wrong) == {1, 2}
    assert len(labelled[0].logits) == 3
    assert labelled[0].logits[0] == max(labelled[0].logits)


def test_a_teacher_that_is_named_must_be_there(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        case.adapt(parts=("crops",), teacher=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("library", ["accelerate", "datasets", "peft"])
def test_without_a_library_it_says_so_at_once(case: Case, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(embedder_data, "gather", None)
    with pytest.raises(Misconfigured, match=r"azimuth-search\[train\]"):
        case.adapt(rank=8)


def test_a_missing_split_and_an_existing_folder_are_named(case: Case) -> None:
    with pytest.raises(Misconfigured, match=r"qrels/dev\.tsv"):
        case.adapt(parts=("dev",))
    case.out.mkdir()
    with pytest.raises(Misconfigured, match="is there already"):
        case.adapt()


def test_static_embeddings_are_not_trained(case: Case, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="only such can be trained"):
        replace(case, model=static_model(tmp_path / "static")).adapt()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--out", "x"], "FOLDER in BEIR layout, or --collection"),
        (["nowhere", "--out", "x"], "not in BEIR layout"),
        (["nowhere", "--out", "x", "--negatives", "-1"], "--negatives"),
        (["nowhere"], "--out"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], reason: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["azimuth", "train", "embedder", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_running_service_lends_documents_model_and_prompts(
    collection: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"model": str(model), "revision": None, "query_prompt": "find: ", "document_prompt": ""}
    documents = read_documents(collection)
    found = {"active_version": 2, "versions": [{"number": 2, "embedder": spec}]}
    monkeypatch.setattr(Client, "versions", lambda *_: found)
    monkeypatch.setattr(Client, "documents", lambda *_: iter(documents))
    scores = count(0.1, 0.01)
    monkeypatch.setattr(HeldOut, "scores", lambda self, chain: [next(scores)] * len(self))
    monkeypatch.setenv("AZIMUTH_DEVICE", "cpu")
    options = ["--epochs", "0.2", "--batch", "16", "--full", "--max-tokens", "48"]
    done = azimuth("train", "embedder", collection, "-c", "papers", "--out", tmp_path / "o", *options)
    assert done.exit_code == 0, done.output
    assert f"azimuth reindex -c papers --embedder {tmp_path / 'o'}" in done.output
    assert TrainableModel(tmp_path / "o", device="cpu").prompts == {"query": "find: ", "document": ""}


def test_no_fact_is_asked_by_both_splits() -> None:
    made = codenames.collection(30, seed=2)
    assert made == codenames.collection(30, seed=2)
    trained, tested = ({document for _, document in made.qrels[split]} for split in ("train", "test"))
    assert trained.isdisjoint(tested)
    assert set(made.qrels["unseen"]) < set(made.qrels["test"])
    seen = {document.split("-")[1] for document in trained}
    assert seen.isdisjoint(document.split("-")[1] for _, document in made.qrels["unseen"])
    assert len(made.corpus) == 240


def test_no_test_query_is_worded_like_a_training_query() -> None:
    for aspect in company.ASPECTS:
        half = len(aspect.questions) // 2
        assert not set(aspect.questions[:half]) & set(aspect.questions[half:])


def test_names_are_told_apart() -> None:
    every = codenames.products(250, random.Random(1))
    names = [name.lower() for product in every for name in product.names]
    assert len(set(names)) == 750
