"""The summary of the benchmarks, and what its floor and the peers are measured with."""

import json
from pathlib import Path

import pytest

from loadtests import bench, floor, peers
from service.evaluation.beir import judgments


def test_reordered_queries_are_new_texts_of_the_same_words() -> None:
    query = "how to cancel a task after a timeout"
    orders = {bench.reordered(query, number) for number in range(20)}
    assert {tuple(sorted(one.split())) for one in orders} == {tuple(sorted(query.split()))}
    assert len(orders) > 15
    assert bench.reordered(query, 3) == bench.reordered(query, 3)


def test_the_page_of_figures_names_the_commit_to_compare_with() -> None:
    assert bench.NAMED.search((bench.ROOT / "docs" / "performance.md").read_text("utf-8"))


def test_the_table_shows_ratios_and_leaves_out_what_was_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    bench.show({"a": [1.0, 3.0, 2.0], "b": [4.0]}, {"a": [4.0]}, {"b": 1.0})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["a", "2.00", "4.00", "0.500", "-", "-"], ["b", "4.00", "-", "-", "1.00", "4.00"]]


def test_the_floor_takes_the_fastest_model() -> None:
    each = {"ONNX Runtime, a": 5.0, "ONNX Runtime, b": 2.0, floor.VECTORS: 3.0, floor.WORDS: 0.5, floor.WHOLE: 9.0}
    assert floor.bare_sum(each) == 5.5


@pytest.mark.parametrize("most", [0, 3, 5])
def test_a_cut_corpus_keeps_what_is_judged(tmp_path: Path, most: int) -> None:
    rows = [{"_id": f"d{at}", "title": "", "text": "t"} for at in range(6)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "what"}) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td4\t1\nq\td5\t1\n")
    found = {one.id for one in peers.corpus(tmp_path, judgments(tmp_path), most)}
    assert len(found) == (most or 6)
    assert {"d4", "d5"} <= found


def test_a_peer_is_ahead_where_it_is_better(tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "what"}) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    answers = {"indexing": 2.0, "seconds": [0.01], "found": [["d"]], "indexing_cpu": 1.0, "searching_cpu": 0.5}
    name, rate, p50, p95, quality, *cpu = peers.row("one", 10, answers, judgments(tmp_path))
    assert (name, rate, p50, p95, quality, cpu) == ("one", 5.0, 10.0, 10.0, 1.0, [100.0, 500.0])
