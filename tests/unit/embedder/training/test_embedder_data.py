"""What an embedder learns from, which wrong passages it is shown, and who is whose rival in a step."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.core.errors import Misconfigured, ModelUnavailable
from service.embedder.training.batches import columns, examples_of_steps
from service.embedder.training.embedder_data import MIN_QUERIES, Passages, crop_queries, gather, hold_out
from service.embedder.training.hard_negatives import CandidateIndex, MinedExample, mine_passages
from service.embedder.training.trainable_model import TrainableModel
from service.embedder.training.training_queries import TrainingQuery, title_queries
from service.evaluation.beir import BeirJudgments
from tests.small import transformer

WORDS = ["pump", "valve", "meter", "sensor", "flange", "gasket", "rotor", "stator", "piston", "bearing"]


def document(number: int, title: str = "", words: int = 20) -> dict[str, str]:
    dice = random.Random(number)
    return {"id": f"d{number}", "title": title, "text": " ".join(dice.choices(WORDS, k=words))}


def query(text: str = "q", *right: int, **more: Any) -> TrainingQuery:
    return TrainingQuery(text=text, part="train", right=right, **more)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> TrainableModel:
    folder = transformer(tmp_path_factory.mktemp("models") / "small")
    return TrainableModel(folder, device="cpu", precision="float32", longest=32)


def test_a_title_of_several_documents_is_asked_once() -> None:
    titles = ["what is a pump", "what is a pump", "pump", ""]
    documents = [document(at, title) for at, title in enumerate(titles)]
    (found,) = title_queries(titles, [one["text"] for one in documents], words=(2, 40))
    assert (found.right, found.titled, found.judged) == ((0, 1), False, False)


def test_crops_are_stretches_of_their_passage() -> None:
    documents = [document(0, "A title", words=60), document(1, words=5)]
    passages = Passages([one["text"] for one in documents], [one["text"] for one in documents], [0, 1], ["a title", ""])
    for seed in range(20):
        (found,) = crop_queries(documents, passages, random.Random(seed))
        assert (found.right, found.passage) == ((0,), 0)
        assert found.answer is not None
        answer = found.answer.removeprefix("A title\n")
        assert (found.answer != answer) == found.titled
        assert answer in documents[0]["text"]
        assert set(found.text.split()) <= set(documents[0]["text"].split())
        assert len(found.text.split()) <= 16


def test_no_document_answers_on_both_sides() -> None:
    dice = random.Random(3)
    every = [query(str(at), *dice.sample(range(300), 2), judged=True) for at in range(100)]
    learnt, aside = hold_out(every, dice)
    assert len(aside) >= 10
    assert {at for one in aside for at in one.right}.isdisjoint(at for one in learnt for at in one.right)


def test_judged_queries_are_what_is_measured_by() -> None:
    every = [query(str(at), at, judged=at % 2 == 0) for at in range(200)]
    _, aside = hold_out(every, random.Random(1))
    assert all(one.judged for one in aside)


def test_all_queries_with_one_answer_are_refused() -> None:
    with pytest.raises(Misconfigured, match="share their answers"):
        hold_out([query(str(at), 0, judged=True) for at in range(50)], random.Random(1))


def test_gathering_takes_at_most_what_was_asked_for(chain: TrainableModel) -> None:
    documents = [document(at, words=60) for at in range(80)]
    judged = BeirJudgments(
        queries={f"q{at}": f"pump {at}" for at in range(70)}, grades={f"q{at}": {f"d{at}": 1} for at in range(70)}
    )
    passages, found = gather(documents, {"train": judged}, ["train"], chain, most=50, seed=1)
    assert len(found) == 50
    assert set(passages.documents) == set(range(80))
    assert len(passages.texts) > 80  # longer than 32 tokens
    assert all(len(ids) <= 32 for ids in chain.tokenizer(passages.texts)["input_ids"])
    again = gather(documents, {"train": judged}, ["train"], chain, most=50, seed=1)
    assert again == (passages, found)


def test_too_little_to_learn_from_says_how_little(chain: TrainableModel) -> None:
    reason = rf"30 documents gave \d+ queries with answers .crops.: at least {MIN_QUERIES}"
    with pytest.raises(Misconfigured, match=reason):
        gather([document(at) for at in range(30)], {}, ["crops"], chain, most=1000, seed=1)
    nowhere = BeirJudgments(queries={"q": "pump"}, grades={"q": {"elsewhere": 1, "d0": 0}})
    with pytest.raises(Misconfigured, match="gave 0 queries"):
        gather([document(0)], {"train": nowhere}, ["train"], chain, most=1000, seed=1)


def rows(*angles: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors at so many degrees from the query."""
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def mined(
    angles: list[float], documents: list[int], titles: list[str] | None = None, *, judged: bool = False
) -> MinedExample:
    """What a query that document 0 answers gets of passages at these angles."""
    texts = [f"passage {at}" for at in range(len(angles))]
    passages = Passages(texts, texts, documents, titles or [""] * len(angles))
    index = CandidateIndex(texts, rows(*angles))
    (found,) = mine_passages([query("q", 0, judged=judged)], rows(0.0), passages, index)
    return found


def test_of_the_right_documents_the_nearest_passage_answers() -> None:
    found = mined([80, 30, 60], [0, 0, 1])
    assert (found.passage, found.wrong) == (1, (2,))


def test_what_may_answer_too_is_not_shown_as_wrong() -> None:
    #              right, same title, near-duplicate of the right one, wrong
    found = mined([40, 60, 45, 70], [0, 1, 2, 3], ["a pump", "a pump", "", ""], judged=True)
    assert found.wrong == (3,)


@pytest.mark.parametrize(("judged", "wrong"), [(False, (2,)), (True, (1, 2))])
def test_only_where_nobody_judged_what_ranks_as_high_is_left_out(judged: bool, wrong: tuple[int, ...]) -> None:
    assert mined([60, 10, 85], [0, 1, 2], judged=judged).wrong == wrong


def test_words_find_wrong_passages_too() -> None:
    texts = [f"passage {at}" for at in range(100)] + ["the quillfeather pump"]
    passages = Passages(texts, texts, list(range(101)), [""] * 101)
    vectors = rows(20, *[60] * 99, 89)
    (found,) = mine_passages([query("quillfeather", 0)], rows(0.0), passages, CandidateIndex(texts, vectors))
    assert 100 in found.wrong


PASSAGES = Passages(
    [f"T\n{at}" for at in range(6)], [str(at) for at in range(6)], [0, 1, 2, 3, 4, 5], ["a", "b", "a", "", "", ""]
)


def step(*examples: MinedExample) -> tuple[dict[str, Any], list[list[float]], list[list[int]]]:
    """Columns of one step, the teacher's logits, and which passages count for which query: answers, then wrong ones."""
    made = columns(examples, PASSAGES, 1, random.Random(1))
    labels = np.array(made.pop("label"))
    shown = len(made) - 1
    return made, labels[:, :shown].tolist(), labels[:, shown:].astype(int).tolist()


def test_passages_are_wrong_answers_of_all_other_queries() -> None:
    examples = [MinedExample(query("x", 0, 3, titled=False), 0, (4,)), MinedExample(query("y", 1), 1, (5,))]
    shown, logits, counted = step(*examples)
    assert shown == {"query": ["x", "y"], "answer": ["0", "T\n1"], "wrong_1": ["4", "T\n5"]}
    assert counted == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert np.isnan(logits).all()


def test_a_document_of_the_same_title_and_one_that_answers_too_do_not_count() -> None:
    examples = [MinedExample(one, one.right[0], ()) for one in (query("x", 0, 3), query("y", 2), query("z", 3))]
    shown, _, counted = step(*examples)
    assert shown["wrong_1"] == shown["answer"]  # nothing was found for them
    assert counted == [[1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]


def test_what_the_teacher_finds_better_than_the_answer_does_not_count() -> None:
    examples = [MinedExample(query("x", 0), 0, (4, 5), (1.0, 2.0, -3.0)), MinedExample(query("y", 1), 1, (4,))]
    _, logits, counted = step(*examples)
    assert counted == [[1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0]]
    assert logits[0] == [1.0, 2.0, -3.0]
    assert np.isnan(logits[1]).all()


def test_each_example_comes_once_before_any_comes_again() -> None:
    examples = [MinedExample(query(str(at), 0), 0, ()) for at in range(10)]
    drawn = examples_of_steps(examples, 5, random.Random(2))
    for _ in range(3):
        assert sorted(one.query.text for one in (*next(drawn), *next(drawn))) == list(map(str, range(10)))


def test_paths_are_not_models(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        TrainableModel(tmp_path, device="cpu")
