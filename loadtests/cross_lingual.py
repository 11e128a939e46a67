"""Questions of each language against passages of each other: `python -m loadtests.cross_lingual xquad`.

The folder has one in BEIR layout for each language, with the same ids in all of them, as XQuAD has. Prints nDCG@10 of
the dense leg (exact cosines of whole paragraphs, rows: questions, columns: passages) and its means. docs/languages.md
has the figures.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from loadtests.figures import heading, table
from service.core.collections import EmbedderSpec
from service.core.ids import Role, Vectors
from service.embedder.models.batch_packing import pack
from service.embedder.models.loader import ModelLoader
from service.evaluation import beir
from service.evaluation.ranking_metrics import ndcg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="multilingual")
    parser.add_argument("--data", type=Path, default=Path("azimuth-data"), help="data folder for what is made of it")
    parser.add_argument("--questions", type=int, default=1_190, help="most of each language")
    arguments = parser.parse_args()
    load = ModelLoader(device="auto", precision="auto", threads=0, exports=arguments.data / "models")
    encoder = load(EmbedderSpec(model=arguments.model))

    def encoded(texts: list[str], role: Role) -> Vectors:
        inputs = encoder.read(texts, role)
        rows = np.empty((len(texts), encoder.identity.dimensions), np.float32)
        for batch in pack([len(one) for one in inputs], encoder.batch_tokens):
            rows[batch] = encoder.forward([inputs[at] for at in batch], role)
        return rows

    languages = sorted(path.name for path in arguments.folder.iterdir() if (path / "corpus.jsonl").is_file())
    judged = {language: beir.judgments(arguments.folder / language) for language in languages}
    chosen = sorted(judged[languages[0]].queries)[: arguments.questions]
    passages: dict[str, tuple[list[str], Vectors]] = {}
    for language in languages:
        lines = map(json.loads, (arguments.folder / language / "corpus.jsonl").read_text("utf-8").splitlines())
        texts = {line["_id"]: line["text"] for line in lines}
        passages[language] = list(texts), encoded([*texts.values()], "document")
    means = np.empty((len(languages), len(languages)))
    for row, language in enumerate(languages):
        questions = encoded([judged[language].queries[one] for one in chosen], "query")
        for column, other in enumerate(languages):
            ids, rows = passages[other]
            best = np.argsort(-(questions @ rows.T), axis=1)[:, :10]
            grades = judged[other].grades
            found = zip(chosen, best, strict=True)
            means[row, column] = np.mean([ndcg([ids[at] for at in ten], grades[one], 10) for one, ten in found])
    heading("nDCG@10; rows: language of the questions, columns: of the passages")
    table(["", *languages], [[name, *(f"{one:.3f}" for one in means[at])] for at, name in enumerate(languages)])
    across = means[~np.eye(len(languages), dtype=bool)]
    print(f"mean of all pairs {means.mean():.4f}, of two languages {across.mean():.4f}, lowest {means.min():.4f}")


if __name__ == "__main__":
    main()
