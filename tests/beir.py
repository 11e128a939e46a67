"""Judged collections in BEIR layout, written to a folder."""

import json
from collections.abc import Iterable, Mapping
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
