"""Judged collections in BEIR layout, written to a folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Judgment = tuple[str, str, int]
"""Query, document, grade."""


def write(
    folder: Path,
    queries: Mapping[str, str],
    *,
    documents: Iterable[Mapping[str, Any]] = (),
    **splits: Iterable[Judgment],
) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": query, "text": text} for query, text in queries.items()]
    for name, objects in (("corpus.jsonl", documents), ("queries.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in objects))
    for split, judgments in splits.items():
        lines = ["\t".join(map(str, row)) for row in (("query-id", "corpus-id", "score"), *judgments)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_pairs(folder: Path, documents: Sequence[Mapping[str, Any]], queries: Sequence[str]) -> Path:
    """The query q0 is answered by the document d0, q1 by d1 and so on."""
    corpus = [{**document, "_id": f"d{at}"} for at, document in enumerate(documents)]
    graded = [(f"q{at}", f"d{at}", 1) for at in range(len(queries))]
    return write(folder, {f"q{at}": query for at, query in enumerate(queries)}, documents=corpus, test=graded)
