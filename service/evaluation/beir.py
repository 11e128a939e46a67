"""Reading collections in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.errors import Misconfigured


@dataclass(frozen=True, kw_only=True, slots=True)
class BeirJudgments:
    """`queries`: id -> text, only judged ones. `grades`: query id -> document id -> relevance."""

    queries: dict[str, str]
    grades: dict[str, dict[str, int]]

    def wire(self) -> dict[str, Any]:
        """As the API takes them: rows with BEIR's own names."""
        return {
            "queries": [{"_id": query, "text": text} for query, text in self.queries.items()],
            "qrels": [
                {"query-id": query, "corpus-id": document, "score": grade}
                for query, graded in self.grades.items()
                for document, grade in graded.items()
            ],
        }


def document(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `corpus.jsonl` as the API takes it. KeyError without `_id`."""
    metadata = {"metadata": row["metadata"]} if row.get("metadata") else {}
    return {"id": row["_id"], "title": row.get("title") or "", "text": row.get("text") or "", **metadata}


def judgments(folder: Path, split: str = "test") -> BeirJudgments:
    """Raises Misconfigured where a file is missing or wrong, or a judged query is not in `queries.jsonl`."""
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file() or not (folder / "queries.jsonl").is_file():
        raise Misconfigured(f"{folder} is not in BEIR layout: queries.jsonl and qrels/{split}.tsv are needed")
    grades: dict[str, dict[str, int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows, delimiter="\t"):
                grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
            texts = {query["_id"]: query["text"] for query in map(json.loads, filter(str.strip, lines))}
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"{folder} is not in BEIR layout: {type(error).__name__}: {error}") from error
    if not grades:
        raise Misconfigured(f"{path} holds no judgments under the header query-id, corpus-id, score")
    if missing := grades.keys() - texts.keys():
        raise Misconfigured(f"{len(missing)} judged queries are not in queries.jsonl, such as {min(missing)}")
    return BeirJudgments(queries={query: texts[query] for query in grades}, grades=grades)
