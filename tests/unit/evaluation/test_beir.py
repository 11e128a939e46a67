import json
from pathlib import Path

import pytest

from service.cli import load_documents
from service.core.errors import Misconfigured
from service.evaluation import beir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    rows = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "text": "second", "metadata": {"year": 2020}}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "one?"}\n{"_id": "q2", "text": "unjudged"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    return tmp_path


def test_judgments_are_of_judged_queries_only(folder: Path) -> None:
    grades = {"q1": {"d1": 2, "d2": 0}}
    assert beir.judgments(folder) == beir.BeirJudgments(queries={"q1": "one?"}, grades=grades)


@pytest.mark.parametrize("missing", ["queries.jsonl", "qrels/test.tsv"])
def test_a_folder_that_is_not_in_the_layout(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(Misconfigured, match="BEIR"):
        beir.judgments(folder)


def test_a_judgment_of_an_unknown_query(folder: Path) -> None:
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q9\td1\t1\n")
    with pytest.raises(Misconfigured, match="q9"):
        beir.judgments(folder)


def test_rows_become_documents_and_other_lines_pass_unchanged(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('\n{"id": "d3", "text": "ours already"}\nnot JSON "_id"\n["_id"]\n')
    lines, total = load_documents.lines_of(str(folder))
    sent = list(lines)
    assert total == len(sent) == 5
    assert json.loads(sent[0]) == {"id": "d1", "title": "One", "text": "first"}
    assert json.loads(sent[1]) == {"id": "d2", "title": "", "text": "second", "metadata": {"year": 2020}}
    others = [b'{"id": "d3", "text": "ours already"}', b'not JSON "_id"', b'["_id"]']
    assert [line.strip() for line in sent[2:]] == others


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no file"):
        load_documents.lines_of(str(tmp_path / "missing.jsonl"))
