"""What is learnt from, and above all what is not: documents that other splits judge, and those held out."""

import random
from pathlib import Path

import pytest

from service.core.errors import Misconfigured
from service.embedder.training import reranker_data
from service.embedder.training.reranker_data import Material
from service.embedder.training.training_queries import TrainingQuery
from tests import beir

SENTENCES = (
    "The cat sat on the mat all day. It was a very warm and quiet day for cats. "
    "Then the dog came in and barked at the cat. Nobody knows why the dog did that."
)


def write(folder: Path) -> Path:
    rows = [
        {"_id": f"d{n}", "title": f"Title {n // 2 if n < 4 else n}", "text": f"Number {n}. {SENTENCES}"}
        for n in range(40)
    ]
    judged = [(f"q{n}", f"d{n}", 1) for n in range(40)]
    train = [*judged[:20], ("q0", "d1", 1), ("q0", "d2", 0), ("q1", "gone", 1)]
    queries = {f"q{n}": f"what of {n}?" for n in range(40)}
    return beir.write(folder, queries, documents=rows, train=train, test=judged[30:])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny")


def read(told: str, hold_out: float = 0.0, seed: int = 7) -> Material:
    return reranker_data.read(reranker_data.parse(told), hold_out=hold_out, seed=seed)


def of(material: Material, part: str) -> list[TrainingQuery]:
    return [query for query in material.queries if query.part == part]


def test_judged_questions_with_all_their_answers(folder: Path) -> None:
    material = read(str(folder))
    assert len(material.queries) == 20
    # d2 was judged irrelevant
    assert material.queries[0] == TrainingQuery(text="what of 0?", part="train", right=(0, 1), judged=True)
    assert material.foreign == frozenset(range(30, 40))
    assert not material.hidden


def test_nothing_is_made_of_documents_that_another_split_judges(folder: Path) -> None:
    material = read(f"{folder}=titles,sentences")
    asked = {at for query in material.queries for at in query.right}
    assert not asked & {*range(20), *range(30, 40)}  # now train is another split as well
    assert asked == set(range(20, 30))
    assert {at for query in read(f"{folder}=train,test,titles").queries for at in query.right} == {*range(40)}


def test_a_title_is_answered_by_all_documents_that_have_it(folder: Path) -> None:
    by_title = {query.text: query for query in of(read(f"{folder}=titles,train,test"), "titles")}
    assert by_title["Title 0"].right == (0, 1)
    assert by_title["Title 7"].right == (7,)
    assert not any(query.titled for query in by_title.values())


def test_a_sentence_is_not_in_its_answer(folder: Path) -> None:
    material = read(f"{folder}=sentences,train,test")
    found = of(material, "sentences")
    assert len(found) == 40
    for query in found:
        assert query.answer is not None
        assert query.text not in query.answer
        assert query.text in material.texts[query.right[0]]
        assert query.answer.startswith("Title") == query.titled
    assert {query.titled for query in found} == {True, False}


def test_times(folder: Path) -> None:
    material = read(f"{folder}=train*2.5,titles*0.3,test")
    assert len(of(material, "train")) == 50
    assert len({query.text for query in of(material, "train")}) == 20
    assert len(of(material, "titles")) == round(0.3 * 38)
    assert material == read(f"{folder}=train*2.5,titles*0.3,test")  # the seed decides


def test_of_what_is_held_out_nothing_is_learnt(folder: Path) -> None:
    material = read(f"{folder}=train,test,titles,sentences", hold_out=0.3)
    assert 0.1 < len(material.hidden) / 40 < 0.5
    assert not material.hidden & {at for query in material.queries for at in query.right}
    assert material.held_out
    assert all(material.hidden.issuperset(query.right) for query in material.held_out)
    assert (0 in material.hidden) == (1 in material.hidden)  # documents of one title go together
    assert read(f"{folder}=train", hold_out=0.3, seed=8).hidden != material.hidden


@pytest.mark.parametrize(
    ("parts", "said"),
    [("train*x", "number"), *((part, "no part") for part in ("train*0", "train*inf", ",")), ("dev", "qrels/dev.tsv")],
)
def test_what_cannot_be_learnt_from(folder: Path, parts: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        read(f"{folder}={parts}")


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Misconfigured, match=r"corpus\.jsonl"):
        reranker_data.parse(str(tmp_path / "nowhere"))
    (folder / "corpus.jsonl").write_text("[1]\n")
    with pytest.raises(Misconfigured, match="cannot be read"):
        read(str(folder))
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "short"}\n')
    with pytest.raises(Misconfigured, match="nothing to learn"):
        read(f"{folder}=titles")


def test_a_folder_with_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "a=b")
    assert reranker_data.parse(str(folder)).parts == {"train": 1.0}


def test_shares_are_uniform() -> None:
    dice = random.Random(1)
    shares = [reranker_data.share(str(dice.random()), 7) for _ in range(2000)]
    assert sum(one < 0.1 for one in shares) == pytest.approx(200, abs=45)
