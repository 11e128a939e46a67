"""A collection of questions and answers, asked its own questions: does an embedder adapted on some answer the others?

    python -m loadtests.questions FOLDER OUT [--documents 4000] [--test 0.15] [--seed 7]

FOLDER is in BEIR layout, and the title of a document is the question that its text answers, as in MedQuAD. In OUT the
titles are gone, or every question would find its own words; they are the queries. Whoever asks the same question asks
it on one side: `--test` of the questions are judged by `qrels/test.tsv`, the others by `qrels/train.tsv`. A question
that more than `MOST` documents answer tells nothing of any of them and is left out.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

from loadtests.codenames import Collection, write

MOST = 5


def split(documents: list[dict[str, str]], count: int, test: float, seed: int) -> Collection:
    """`count` of the documents at random; the same for the same seed."""
    dice = random.Random(seed)
    chosen = dice.sample(documents, min(count, len(documents)))
    answers: dict[str, list[str]] = defaultdict(list)
    for document in chosen:
        if document["title"].strip():
            answers[" ".join(document["title"].split())].append(document["_id"])
    asked = sorted(question for question, right in answers.items() if len(right) <= MOST)
    dice.shuffle(asked)
    made = Collection(
        corpus=[{"_id": document["_id"], "title": "", "text": document["text"]} for document in chosen],
        queries={f"q{at}": question for at, question in enumerate(asked)},
        qrels={"train": [], "test": []},
    )
    for at, question in enumerate(asked):
        made.qrels["test" if at < test * len(asked) else "train"] += [(f"q{at}", one) for one in answers[question]]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask a collection of questions and answers its own questions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=4_000)
    parser.add_argument("--test", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with (arguments.folder / "corpus.jsonl").open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    made = split(documents, arguments.documents, arguments.test, arguments.seed)
    write(made, arguments.out)
    judged = ", ".join(f"{len(pairs):,} {split}" for split, pairs in made.qrels.items())
    print(f"{len(made.corpus):,} documents; judgments: {judged}")


if __name__ == "__main__":
    main()
