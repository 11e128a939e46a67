"""Is the right section, or the right row of a table, ranked first? `python -m loadtests.chunk_context`.

Two seeded collections of Markdown, chunked and ranked by the default model, with the context of the chunks and without:

- sections: manuals in which each part of a machine has a long section. The sections say the same kinds of things in the
  same words; the name of the part is in the heading alone. A query names the machine, the part and what is wanted.
- rows: price lists, stock lists and data sheets with the same part numbers in long tables. A query names a part number
  and a column. The column is in the header of the right table alone.

Counted: the chunk that ranks first holds the wanted sentence of that section, or the row of that table. With `--url`
the same is asked of a running service, in hybrid searches with `group_by: chunk`.
"""

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from loadtests.clients import ask
from loadtests.figures import heading, table
from loadtests.identifiers import load
from service.core.collections import ChunkingSettings, EmbedderSpec
from service.core.documents import Chunk, StoredDocument
from service.core.ids import DocumentId
from service.core.ports.embedder import Encoder
from service.embedder.models import source
from service.embedder.models.loader import ModelLoader
from service.embedder.worker.document_chunker import chunk_documents

MACHINES = {
    "harvester": ("cutter bar", "threshing drum", "grain tank", "straw chopper", "feeder chain", "cleaning fan"),
    "excavator": ("boom cylinder", "bucket", "swing motor", "track chain", "cab heater", "hydraulic pump"),
    "forklift": ("mast", "fork carriage", "battery charger", "steering axle", "seat switch", "tilt cylinder"),
    "chainsaw": ("guide bar", "carburettor", "chain brake", "starter rope", "spark plug", "oil pump"),
}
WANTED = {
    "tightening torque": "Tighten the four bolts crosswise to {n} newton metres and check them after one day.",
    "cleaning": "Wipe it with a lint-free cloth and warm water every {n} hours, and let it dry in the air.",
    "replacement interval": "It has to be replaced by a new one after {n} hours of work at the latest.",
    "lubrication": "Put {n} grams of lithium grease into both nipples before each season.",
    "storage in winter": "In the cold months keep it in a dry room at {n} degrees, covered with a sheet.",
    "noise while running": "If it rattles or whistles at more than {n} decibels, stop and look for a loose screw.",
}
FILLER = (
    "Read all warnings before you begin, and keep other people away from the place of work.",
    "Switch off the engine, remove the key and wait until all moving parts stand still.",
    "Wear gloves and safety glasses, since edges may be sharp and fluids may be hot.",
    "Lay the removed parts on a clean surface in the order in which you removed them.",
    "Compare each part with the drawing and note its state in the service book.",
    "Use genuine spare parts only, since others may fail early and void the warranty.",
    "If you are not sure about a step, ask your dealer before you go on.",
    "Put everything back in the opposite order, and make sure that nothing is left over.",
    "A second person should watch the display while you work, and stop you if a lamp turns red.",
    "Dispose of used fluids and worn parts at a collection point, never with the household waste.",
    "Make a short test run without load, and listen for unusual sounds.",
    "Write the date, the hours and your name into the service book when you have finished.",
)
COLUMNS = {
    "Price list": ("Part number", "Price", "Discount", "Currency"),
    "Stock list": ("Part number", "Shelf", "Pieces in stock", "Last delivery"),
    "Data sheet": ("Part number", "Weight", "Material", "Length"),
}
QUESTIONS = {
    "Price list": "what does part {} cost",
    "Stock list": "how many pieces of {} are in stock",
    "Data sheet": "weight and material of part {}",
}


@dataclass(frozen=True)
class Query:
    """`document`, `start`: where the wanted sentence or row stands."""

    text: str
    document: int
    start: int


def sections(dice: random.Random) -> tuple[list[tuple[str, str]], list[Query]]:
    documents, queries = [], []
    for number, (machine, parts) in enumerate(MACHINES.items()):
        text = f"# Manual of the {machine}\n"
        for part in parts:
            text += f"\n## {part.capitalize()}\n"
            for wanted, sentence in dice.sample(sorted(WANTED.items()), len(WANTED)):
                before, after = dice.sample(FILLER, 4), dice.sample(FILLER, 3)
                text += "\n" + " ".join(before) + " "
                queries.append(Query(f"{machine} {part}: {wanted}", number, len(text)))
                text += " ".join([sentence.format(n=dice.randint(5, 90)), *after]) + "\n"
        documents.append((f"{machine.capitalize()} manual", text))
    return documents, queries


def rows(dice: random.Random, count: int) -> tuple[list[tuple[str, str]], list[Query]]:
    names = [f"{dice.choice('ABCDEFGH')}{dice.choice('KLMNPQ')}-{at:03}" for at in range(count)]
    kinds = {
        "Price list": lambda: f"{dice.randint(1, 900)}.{dice.randint(10, 99)} | {dice.randint(0, 20)} % | EUR",
        "Stock list": lambda: f"{dice.randint(1, 40)}-{dice.choice('abc')} | {dice.randint(0, 500)} | 12 May",
        "Data sheet": lambda: f"{dice.randint(1, 90)} kg | {dice.choice(('steel', 'brass', 'nylon'))} | 20 cm",
    }
    documents, queries = [], []
    for number, (kind, columns) in enumerate(COLUMNS.items()):
        text = f"# Appendix {number + 1}\n\n## {kind}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
        asked = set(dice.sample(names, count // 4))
        for name in dice.sample(names, count):
            if name in asked:
                queries.append(Query(QUESTIONS[kind].format(name), number, len(text)))
            text += f"| {name} | {kinds[kind]()} |\n"
        documents.append((f"Appendix {number + 1}", text))
    return documents, queries


def ranked_first(
    encoder: Encoder, documents: Sequence[tuple[str, str]], queries: Sequence[Query]
) -> list[tuple[str, int, float, float]]:
    """For chunks with context and without: the name, their number, the share of right first chunks, and MRR@10."""
    now = datetime.now(UTC)
    same = {"metadata": {}, "revision": 1, "content_revision": 1, "created_at": now, "updated_at": now}
    stored = [
        StoredDocument(id=DocumentId(str(at)), title=title, text=text, **same)  # type: ignore[arg-type]
        for at, (title, text) in enumerate(documents)
    ]
    found = [
        (at, chunk)
        for at, chunks in enumerate(chunk_documents(encoder, stored, ChunkingSettings()))
        for chunk in chunks
    ]
    bare = [f"{documents[at][0]}\n{documents[at][1][chunk.start : chunk.end]}" for at, chunk in found]
    wanted = encoder.encode([query.text for query in queries], "query")
    results = []
    for name, texts in (("title and passage", bare), ("title, context and passage", [one.text for _, one in found])):
        vectors = np.concatenate([encoder.encode(texts[at : at + 32], "document") for at in range(0, len(texts), 32)])
        order = np.argsort(-(wanted @ vectors.T), axis=1, kind="stable")[:, :10]
        ranks = [_rank([found[at] for at in row], query) for row, query in zip(order.tolist(), queries, strict=True)]
        results.append((name, len(texts), *_figures(ranks)))
    return results


def asked(url: str, name: str, documents: Sequence[tuple[str, str]], queries: Sequence[Query]) -> tuple[float, float]:
    """The share of right first chunks, and MRR@10, of hybrid searches of a service."""
    load(url, name, [{"id": str(at), "title": title, "text": text} for at, (title, text) in enumerate(documents)])
    requests = [{"query": query.text, "k": 10, "group_by": "chunk", "include": []} for query in queries]
    ranks = []
    for query, answer in zip(queries, ask(url, name, requests).bodies, strict=True):
        places = [(int(hit["id"]), hit["start"] <= query.start < hit["end"]) for hit in answer["hits"]]
        right = (rank for rank, place in enumerate(places, start=1) if place == (query.document, True))
        ranks.append(next(right, 0))
    return _figures(ranks)


def _figures(ranks: Sequence[int]) -> tuple[float, float]:
    return statistics.mean(rank == 1 for rank in ranks), statistics.mean(1 / rank if rank else 0.0 for rank in ranks)


def _rank(chunks: Sequence[tuple[int, Chunk]], query: Query) -> int:
    """The rank of the first right chunk, 0 for none."""
    right = (document == query.document and one.start <= query.start < one.end for document, one in chunks)
    return next((rank for rank, one in enumerate(right, start=1) if one), 0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rows", type=int, default=240, help="rows of each table")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--url", help="ask this service, which gets two collections, sections and rows")
    chosen = arguments.parse_args()
    encoder = ModelLoader(device="auto", precision="auto", threads=0)(EmbedderSpec(model=source.BUNDLED))
    dice = random.Random(chosen.seed)
    for name, (documents, queries) in (("sections", sections(dice)), ("rows", rows(dice, chosen.rows))):
        heading(f"{name}: {len(queries)} queries, {len(documents)} documents")
        if chosen.url:
            table(["search", "right first", "MRR@10"], [["hybrid", *asked(chosen.url, name, documents, queries)]])
            continue
        table(["chunks are encoded as", "chunks", "right first", "MRR@10"], ranked_first(encoder, documents, queries))


if __name__ == "__main__":
    main()
