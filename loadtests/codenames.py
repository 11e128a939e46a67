"""A collection in which a general embedder is lost: the papers of a company whose products have three names each.

    python -m loadtests.codenames OUT [--seed 7] [--products 250]

Nothing in it is real. Each product has a catalogue number (`XR-4410b`), a project codename (`Quillfeather`) and a brand
(`Velmora`). Codenames are put together of the same few parts, numbers are neighbours, so that what a general tokenizer
breaks them into is shared by many products. A document states one fact about one product and calls it by one of its
names; the question about that fact calls it by any. That two names are one product is stated once, in its release note.

A product has eight documents. Of four products in five, facts of four documents are asked by training queries and those
of two others by test queries; of the fifth, two facts are asked by test queries alone (`qrels/unseen.tsv`, a part of
`qrels/test.tsv`). So no document that answers a test query answers a training query, and no test query is worded as a
training query is: the wordings are divided too. Output is in BEIR layout, the same for the same seed.
"""

import argparse
import csv
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.company import (
    ASPECTS,
    FAMILIES,
    FIRST,
    FLUIDS,
    KINDS,
    MATERIALS,
    PEOPLE,
    RELEASE,
    SECOND,
    SITES,
    SYLLABLES,
    Aspect,
)

DOCUMENTS_EACH = 8
UNSEEN_SHARE = 0.2
TRAINED, TESTED = 4, 2
"""Documents of a product that training and test queries ask about."""


@dataclass(frozen=True)
class Product:
    number: str
    codename: str
    brand: str
    kind: str

    @property
    def names(self) -> tuple[str, str, str]:
        return self.number, self.codename, self.brand


@dataclass(frozen=True)
class Collection:
    """`qrels`: split -> (query, document) pairs."""

    corpus: list[dict[str, str]]
    queries: dict[str, str]
    qrels: dict[str, list[tuple[str, str]]]


def products(count: int, dice: random.Random) -> list[Product]:
    codenames = dice.sample([first.capitalize() + second for first in FIRST for second in SECOND], count)
    brands = dice.sample([(a + b + c).capitalize() for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES], count)
    numbers = [
        f"{family}-{hundred}{unit}{letter}"
        for family in FAMILIES
        for hundred in (44, 45)
        for unit in range(10, 20)
        for letter in "abc"
    ]
    catalogue = dice.sample(numbers, count)
    return [
        Product(number, codename, brand, dice.choice(KINDS))
        for number, codename, brand in zip(catalogue, codenames, brands, strict=True)
    ]


def collection(count: int = 250, seed: int = 7) -> Collection:
    """At most 400 products: there are no more codenames."""
    dice = random.Random(seed)
    every = products(count, dice)
    unseen = set(dice.sample(range(count), round(UNSEEN_SHARE * count)))
    corpus: list[dict[str, str]] = []
    queries: dict[str, str] = {}
    qrels: dict[str, list[tuple[str, str]]] = {"train": [], "test": [], "unseen": []}
    for at, product in enumerate(every):
        aspects = [RELEASE, *dice.sample(ASPECTS, DOCUMENTS_EACH - 1)]
        dice.shuffle(aspects)
        for place, aspect in enumerate(aspects):
            document = f"doc-{at:03d}-{place}"
            corpus.append({"_id": document, **_written(aspect, product, every, dice)})
            for split, question in _asked(aspect, product, place, at in unseen, dice):
                query = f"{split}-{at:03d}-{place}-{len(queries)}"
                queries[query] = question
                qrels[split].append((query, document))
                if at in unseen:
                    qrels["unseen"].append((query, document))
    return Collection(corpus, queries, qrels)


def _written(aspect: Aspect, product: Product, every: Sequence[Product], dice: random.Random) -> dict[str, str]:
    other = dice.choice([one for one in every if one is not product])
    values = {
        "n": dice.choice(product.names),
        "o": dice.choice(other.names),
        "x": dice.randint(11, 99),
        "y": dice.randint(11, 99),
        "site": dice.choice(SITES),
        "person": dice.choice(PEOPLE),
        "material": dice.choice(MATERIALS),
        "fluid": dice.choice(FLUIDS),
        "kind": product.kind,
        "number": product.number,
        "codename": product.codename,
        "brand": product.brand,
    }
    return {
        "title": dice.choice(aspect.titles).format_map(values),
        "text": dice.choice(aspect.texts).format_map(values),
    }


def _asked(
    aspect: Aspect, product: Product, place: int, unseen: bool, dice: random.Random
) -> Iterator[tuple[str, str]]:
    """Split and question. Documents come shuffled, so the first are any."""
    half = len(aspect.questions) // 2
    if place < TRAINED and not unseen:
        # Each wording once, by two different names.
        for wording, name in zip(aspect.questions[:half], dice.sample(product.names, half), strict=True):
            yield "train", wording.format(n=name)
    elif TRAINED <= place < TRAINED + TESTED:
        yield "test", dice.choice(aspect.questions[half:]).format(n=dice.choice(product.names))


def write(made: Collection, folder: Path) -> None:
    """BEIR layout."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = ({"_id": query, "text": text} for query, text in made.queries.items())
    for name, lines in (("corpus.jsonl", made.corpus), ("queries.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    for split, pairs in made.qrels.items():
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("query-id", "corpus-id", "score"))
            writer.writerows((*pair, 1) for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the collection of a company whose products have codenames.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--products", type=int, default=250)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    made = collection(arguments.products, arguments.seed)
    write(made, arguments.out)
    judged = ", ".join(f"{len(pairs):,} {split}" for split, pairs in made.qrels.items())
    print(f"{len(made.corpus):,} documents; judged queries: {judged}")


if __name__ == "__main__":
    main()
