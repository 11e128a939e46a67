"""A whole hybrid answer against its bare parts: `python -m loadtests.floor [--documents 100000]`.

In turns, query by query: the answer over HTTP; the bundled model in ONNX Runtime, from text to vector; the statement
that takes the nearest neighbours from the same HNSW index, prepared and binary, at the `ef_search` of the answer's
plan; Tantivy's BM25 over the same index, its terms ready made. The last three one after the other would be a search
that does nothing else: no fusion, no passages, no highlights, no HTTP.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psycopg
import tantivy
import torch
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from tokenizers import Tokenizer
from transformers import AutoModel

from loadtests import prepare
from loadtests.bench import reordered
from loadtests.clients import Answers, ask
from loadtests.figures import heading, median, percentile, table
from loadtests.ingest import service_cpu
from loadtests.sandbox import Sandbox, sandbox
from service.client.http_client import Client
from service.core.ids import Vector
from service.embedder.models import source
from service.embedder.models.onnx_export import export
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.index import configure, schema

K = 10
PROMISED = 1.5
TURN = 10
"""Queries that each is asked before the next is."""
WHOLE, VECTORS, WORDS = "hybrid answer over HTTP", "pgvector statement", "tantivy search"
BARE = "the parts together (fastest model)"
Embed = Callable[[str], Vector]


class _Embedder(torch.nn.Module):
    """all-MiniLM-L6-v2 from tokens to vectors: mean of the tokens, length 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.network = AutoModel.from_pretrained(folder)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        summed = (states * attention_mask.unsqueeze(-1)).sum(1)
        return torch.nn.functional.normalize(summed)


def models(folder: Path) -> dict[str, Embed]:
    """The model in float32 and in 8 bits, on one thread and on all cores. `folder`: for its exported files."""
    found = source.folder(source.BUNDLED, None)
    network, tokenizer = _Embedder(found), Tokenizer.from_file(str(found / "tokenizer.json"))
    tokenizer.no_padding()
    example = torch.tensor([[101, 2129, 102], [101, 102, 0]])
    inputs = {"input_ids": example, "attention_mask": (example > 0).long()}
    embeds: dict[str, Embed] = {}
    for precision in ("float32", "8 bits"):
        file = folder / f"{precision}.onnx"
        export(network, inputs, file, eight_bit="blocks" if precision == "8 bits" else None)
        for threads in (1, 0):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the others want the cores
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

            def embed(text: str, session: onnxruntime.InferenceSession = session) -> Vector:
                ids = np.array([tokenizer.encode(text).ids], np.int64)
                (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
                vector: Vector = vectors[0]
                return vector

            embeds[f"ONNX Runtime, {precision}, {'one thread' if threads else 'all cores'}"] = embed
    return embeds


class Neighbours:
    """One connection to the database and the statement that anybody would write."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        register_vector(self._connection)
        searched = f"SELECT id, active_version FROM collections WHERE name = '{prepare.COLLECTION}'"
        self.collection, version = self._one(searched)
        self._table = f"vectors_{self.collection}_{version}"

    def _one(self, statement: str) -> tuple[Any, ...]:
        row = self._connection.execute(statement.encode()).fetchone()
        assert row is not None
        return tuple(row)

    def plan(self, ef_search: int | None) -> None:
        """For the searches from now on; None: no index."""
        self._one(f"SELECT set_config('hnsw.ef_search', '{ef_search or 40}', false)")
        self._one(f"SELECT set_config('enable_sort', '{'off' if ef_search else 'on'}', false)")

    def search(self, vector: Vector) -> list[tuple[str, float]]:
        statement = f"SELECT document_id, embedding <=> %s AS distance FROM {self._table} ORDER BY distance LIMIT {K}"
        cursor = self._connection.cursor(binary=True)
        return cursor.execute(statement.encode(), (HalfVector(vector),), prepare=True).fetchall()

    def close(self) -> None:
        self._connection.close()


class Words:
    """The searcher of a collection's lexical index."""

    def __init__(self, folder: Path, collection: int) -> None:
        (found,) = {file.parent for file in folder.glob(f"lexical/*/{collection}-*/meta.json")}
        self._searcher = configure(tantivy.Index.open(str(found))).searcher()
        self._chain = analyzer_for("en").chain("en")
        self._schema = schema()

    def terms(self, text: str) -> list[str]:
        return list(self._chain.query_terms(text))

    def search(self, terms: Sequence[str]) -> list[str]:
        queries = [tantivy.Query.term_query(self._schema, "body", term, "freq") for term in terms]
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, one) for one in queries])
        hits = self._searcher.search(query, K, count=False).hits
        return [self._searcher.doc(address)["document_id"][0] for _, address in hits]


class Rivals:
    """The whole answer and its bare parts, ready to be asked."""

    def __init__(self, place: Sandbox, address: str, folder: Path) -> None:
        """`folder`: for the exported models."""
        self._place, self._address = place, address
        self._embeds, self._neighbours = models(folder), Neighbours(place.url)
        self._words = Words(place.folder, self._neighbours.collection)

    def wall(self, queries: Sequence[str], rounds: int) -> dict[str, list[float]]:
        """Seconds of each search by its name, in turns. A first round warms up and is not counted."""
        seconds: dict[str, list[float]] = {}
        for number in range(rounds + 1):
            if number == 1:
                seconds.clear()
            for start in range(0, len(queries), TURN):
                turn = [reordered(query, -number) for query in queries[start : start + TURN]]
                answers = self._ask(turn)
                seconds.setdefault(WHOLE, []).extend(answers.seconds)
                for query, body in zip(turn, answers.bodies, strict=True):
                    for name, run in self._bare(query, body["plan"]["ef_search"]).items():
                        started = time.perf_counter()
                        run()
                        seconds.setdefault(name, []).append(time.perf_counter() - started)
        return seconds

    def processor(self, queries: Sequence[str]) -> dict[str, float]:
        """Milliseconds of processor time of one search, in all processes but the client that asks; each way by itself.

        What the service does by the clock meanwhile is counted, too; it is little.
        """
        asked = [reordered(query, -100) for query in queries]
        begun = service_cpu(self._place)
        bodies = self._ask(asked).bodies
        spent = {WHOLE: service_cpu(self._place) - begun}
        runs = [self._bare(query, bodies[0]["plan"]["ef_search"]) for query in asked]
        for name in runs[0]:
            begun, own = service_cpu(self._place), time.process_time()
            for each in runs:
                each[name]()
            spent[name] = time.process_time() - own
            spent[name] += service_cpu(self._place) - begun if name == VECTORS else 0.0
        return {name: 1e3 * taken / len(asked) for name, taken in spent.items()}

    def close(self) -> None:
        self._neighbours.close()

    def _ask(self, queries: Sequence[str]) -> Answers:
        return ask(self._address, prepare.COLLECTION, [{"query": query, "k": K} for query in queries])

    def _bare(self, query: str, ef_search: int | None) -> dict[str, Callable[[], object]]:
        vector, terms = next(iter(self._embeds.values()))(query), self._words.terms(query)
        self._neighbours.plan(ef_search)
        return {
            **{name: partial(embed, query) for name, embed in self._embeds.items()},
            VECTORS: partial(self._neighbours.search, vector),
            WORDS: partial(self._words.search, terms),
        }


@contextmanager
def rivals(place: Sandbox, address: str) -> Iterator[Rivals]:
    with tempfile.TemporaryDirectory() as folder:
        ready = Rivals(place, address, Path(folder))
        try:
            yield ready
        finally:
            ready.close()


def fastest_model(each: Mapping[str, float]) -> float:
    return min(value for name, value in each.items() if name.startswith("ONNX"))


def bare_sum(each: Mapping[str, float]) -> float:
    """Of the fastest model, the statement and the words."""
    return fastest_model(each) + each[VECTORS] + each[WORDS]


def measure(place: Sandbox, documents: int, rounds: int) -> None:
    queries = prepare.queries(place, documents)
    with place.api() as address:
        with Client(address) as client:
            prepare.caught_up(client)
        with rivals(place, address) as all_of_them:
            seconds, processor = all_of_them.wall(queries, rounds), all_of_them.processor(queries)
    heading(f"{documents:,} chunks, {rounds * len(queries)} queries in turns, k {K}, one client: ms")
    p50 = {name: median(own) for name, own in seconds.items()}
    rows = [[name, p50[name], percentile(seconds[name], 0.95), processor[name]] for name in sorted(p50)]
    table(["", "p50", "p95", "processor time"], [*rows, [BARE, bare_sum(p50), "", bare_sum(processor)]])
    ratio, in_work = (each[WHOLE] / bare_sum(each) for each in (p50, processor))
    kept = "kept" if ratio <= PROMISED else "NOT KEPT"
    print(f"  the answer / its parts: {ratio:.2f} at p50, {in_work:.2f} in processor time; promised {PROMISED}: {kept}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=1, help="times that each of 200 queries is asked")
    arguments.add_argument("--folder", type=Path, help="keep the collection here, or use the one that is here")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        measure(place, chosen.documents, chosen.rounds)


if __name__ == "__main__":
    main()
