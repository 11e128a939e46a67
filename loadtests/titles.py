"""A judged collection out of one whose titles are questions: is the answer found by its text alone?

    python -m loadtests.titles FOLDER OUT [--hold-out 0.06] [--share 1] [--also test] [--seed 7]

Documents go without their titles. Each title becomes a query, answered by all documents that had it. A part of the
titles, by chance and always the same for the same seed, is `qrels/test.tsv`; the others are `qrels/train.tsv`. So no
document answers both a training and a test query. Judgments that FOLDER itself brings are copied by `--also SPLIT`.
`--share 0.3` takes three tenths of the titles with all their documents, and every document that was judged.
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from service.evaluation import beir

_SHORTEST_TEXT = 80
"""Characters of a document below which it answers nothing."""


def share(text: str, seed: int) -> float:
    """A number in [0, 1) that is always the same for a text."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=8).digest(), "big") / 2**64


def split(documents: Iterable[dict[str, str]], hold_out: float, seed: int) -> dict[str, dict[str, list[str]]]:
    """`train` and `test`: question -> ids of the documents that answer it."""
    asked: dict[str, list[str]] = {}
    wording: dict[str, str] = {}
    for document in documents:
        folded = _folded(document)
        if folded and len(document["text"]) >= _SHORTEST_TEXT:
            asked.setdefault(folded, []).append(document["id"])
            wording.setdefault(folded, document["title"])
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for folded, answers in asked.items():
        parts["test" if share(folded, seed) < hold_out else "train"][wording[folded]] = answers
    return parts


def _folded(document: dict[str, str]) -> str:
    return " ".join(document["title"].lower().split())


def main() -> None:
    parser = argparse.ArgumentParser(description="Titles become queries, documents lose them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hold-out", type=float, default=0.06)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--also", action="append", default=[], help="Copy the queries and judgments of this split.")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with (arguments.folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        documents = [beir.document(json.loads(line)) for line in lines if line.strip()]
    own = {name: beir.judgments(arguments.folder, name) for name in arguments.also}
    judged = {document for one in own.values() for grades in one.grades.values() for document in grades}
    documents = [
        document
        for document in documents
        if document["id"] in judged or share(_folded(document), arguments.seed + 1) < arguments.share
    ]
    (arguments.out / "qrels").mkdir(parents=True, exist_ok=True)
    with (arguments.out / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps({"_id": document["id"], "title": "", "text": document["text"]}) + "\n")
    with (arguments.out / "queries.jsonl").open("w", encoding="utf-8") as queries:
        for name, asked in split(documents, arguments.hold_out, arguments.seed).items():
            rows = []
            for number, (question, answers) in enumerate(asked.items()):
                queries.write(json.dumps({"_id": f"{name}-{number}", "text": question}) + "\n")
                rows += [(f"{name}-{number}", answer, 1) for answer in answers]
            _write(arguments.out, name, rows)
            print(f"{name}: {len(asked):,} questions with {len(rows):,} answers")
        for name, one in own.items():
            for query, text in one.queries.items():
                queries.write(json.dumps({"_id": f"own-{query}", "text": text}) + "\n")
            graded = ((f"own-{query}", *row) for query, grades in one.grades.items() for row in grades.items())
            _write(arguments.out, f"own-{name}", graded)
            print(f"own-{name}: {len(one.queries):,} questions, as {arguments.folder.name} judges them")
    print(f"{len(documents):,} documents")


def _write(folder: Path, name: str, rows: Iterable[tuple[str, str, int]]) -> None:
    with (folder / "qrels" / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("query-id", "corpus-id", "score"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
