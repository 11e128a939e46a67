"""Reading collections in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import Misconfigured


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgments:
    """`queries`: id -> text, only judged ones. `grades`: query id -> document id -> relevance."""

    queries: dict[str, str]
    grades: dict[str, dict[str, int]]


def is_folder(path: Path) -> bool:
    return (path / "corpus.jsonl").is_file()


def corpus(folder: Path) -> Iterator[dict[str, object]]:
    """Documents as the API takes them. BEIR's optional `metadata` is carried along."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                document = {"id": row["_id"], "title": row.get("title") or "", "text": row.get("text") or ""}
                if row.get("metadata"):
                    document["metadata"] = row["metadata"]
                yield document


def judgments(folder: Path, split: str = "test") -> Judgments:
    """Misconfigured where a file is missing or a judgment speaks of a query that is not there."""
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file() or not (folder / "queries.jsonl").is_file():
        raise Misconfigured(f"{folder} is not in BEIR layout: queries.jsonl and qrels/{split}.tsv are needed")
    grades: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        texts = {query["_id"]: query["text"] for query in map(json.loads, filter(str.strip, lines))}
    if missing := grades.keys() - texts.keys():
        raise Misconfigured(f"{len(missing)} judged queries are not in queries.jsonl, such as {min(missing)}")
    return Judgments(queries={query: texts[query] for query in grades}, grades=grades)
