"""A folder in BEIR layout whose query q0 is answered by document d0, q1 by d1 and so on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_beir(folder: Path, documents: Sequence[Mapping[str, str]], queries: Sequence[str]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{**document, "_id": f"d{at}"} for at, document in enumerate(documents)]
    asked = [{"_id": f"q{at}", "text": query} for at, query in enumerate(queries)]
    for name, rows in (("corpus", corpus), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grades = "".join(f"q{at}\td{at}\t1\n" for at in range(len(queries)))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{grades}")
    return folder
