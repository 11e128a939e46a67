"""What the benchmarks measure with must itself be right."""

import json
from pathlib import Path

import numpy as np
import pytest

from loadtests import titles
from loadtests.corpus import Corpus
from loadtests.figures import percentile
from loadtests.space import clustered
from service.evaluation import beir


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.95, 95.0), (1.0, 100.0), (0.0, 1.0)])
def test_percentiles_are_by_nearest_rank_and_in_milliseconds(share: float, expected: float) -> None:
    assert percentile([number / 1e3 for number in range(100, 0, -1)], share) == pytest.approx(expected)


def test_a_corpus_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    corpus = Corpus(
        anchors=[["red", "fox"], ["blue", "sea"], ["old", "oak"]],
        vectors=np.eye(3, 8, dtype=np.float32),
        queries=[],
        words=["the", "and", "rare"],
        frequencies=[100, 50, 1],
    )
    (first, rows), (again, same), (other, _) = (next(corpus.documents(50, seed)) for seed in (1, 1, 2))
    assert [one.text for one in first] == [one.text for one in again] != [one.text for one in other]
    assert np.array_equal(rows, same)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(50), abs=1e-5)


def test_clustered_vectors_are_nearer_to_their_own_than_to_others() -> None:
    rows = clustered(400, 64, seed=1, per_cluster=20)
    cosines = rows @ rows.T - 2 * np.eye(len(rows), dtype=np.float32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert np.median(cosines.max(axis=1)) > 0.5 > np.median(cosines)


def test_titles_are_asked_of_texts_that_do_not_say_them() -> None:
    text = "An answer that is long enough to be told from a heading without a section. " * 2
    documents = [{"id": f"d{at}", "title": f"What is {at // 2}?" if at < 40 else "", "text": text} for at in range(50)]
    documents.append({"id": "short", "title": "What is 0?", "text": "See there."})
    parts = titles.split(documents, 0.25, seed=1)
    assert parts == titles.split(documents, 0.25, seed=1)
    assert parts["test"].keys().isdisjoint(parts["train"])
    assert 0 < len(parts["test"]) < len(parts["train"])
    asked = {document["id"]: document["title"] for document in documents}
    found = {answer: question for part in parts.values() for question, answers in part.items() for answer in answers}
    assert found == {id_: title for id_, title in asked.items() if title and id_ != "short"}  # both who answer it


def test_a_collection_loses_the_titles_that_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    rows = [{"_id": f"d{at}", "title": f"What is {at}?", "text": "It is told here at length. " * 5} for at in range(30)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["titles", str(folder), str(tmp_path / "made"), "--hold-out", "0.3"])
    titles.main()
    made = [json.loads(line) for line in (tmp_path / "made" / "corpus.jsonl").read_text("utf-8").splitlines()]
    assert [(row["_id"], row["title"], row["text"]) for row in made] == [(r["_id"], "", r["text"]) for r in rows]
    for split in ("train", "test"):
        asked = beir.judgments(tmp_path / "made", split)
        for query, right in asked.grades.items():
            assert asked.queries[query] in {f"What is {one.removeprefix('d')}?" for one in right}
