"""Which index for a million chunks? `python -m loadtests.index_kinds --documents 1000000 --folder FOLDER`.

The vectors of `corpus.py` (or of other anchors: `embedded.npz` in the folder) in one table as the store makes it, and
four partitions. Every kind gets the smallest effort with which its recall@10 reaches the target; then they are measured
in turns. What is built is kept in the folder for another run, and for `replaced_rows.py`.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

from loadtests import corpus
from loadtests.figures import heading, median, percentile, table
from loadtests.prepare import SEED, settings_in
from service.core.collections import EmbedderSpec
from service.core.ids import CollectionId, Vectors, VersionNumber
from service.core.vector_math import unit_rows
from service.runtime.container import components
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.vectors import vector_tables

SPACE = CollectionId(1), VersionNumber(1)
TABLE = vector_tables.vector_table(*SPACE).table
PARTS, BUILD_MEMORY, BATCH = 4, "2600MB", 1_000
PART_TABLES = tuple(f"part_{at}" for at in range(PARTS))
LIMIT, K, TARGET, QUERIES = 100, 10, 0.95, 400
"""Rows that a search asks for, and those whose recall counts."""
COPY = f"""COPY {TABLE} (collection_id, document_id, chunk, embedder_version, content_revision, starts, ends, seal,
    embedding) FROM STDIN (FORMAT binary)"""
NEAREST = """SELECT document_id, embedding <=> %(vector)s AS distance FROM {table}
    ORDER BY embedding <=> %(vector)s LIMIT {limit}"""
RESCORED = """WITH found AS MATERIALIZED (
    SELECT document_id, embedding <=> %(vector)s AS distance FROM {table} ORDER BY {stored} <~> {asked} LIMIT {effort}
) SELECT document_id, distance FROM found ORDER BY distance + 0 LIMIT {limit}"""
QUARTILE = "array_fill(0.03442::real, ARRAY[384])::halfvec"
SIGN = "binary_quantize({value})::bit(384)"
LEVELS = f"""(binary_quantize({{value}} - {QUARTILE}) || binary_quantize({{value}})
    || binary_quantize({{value}} + {QUARTILE}))::bit(1152)"""
M16, M24 = "hnsw ({key}) WITH (m = 16, ef_construction = 64)", "hnsw ({key}) WITH (m = 24, ef_construction = 128)"
GRAPH, BITS = (100, 150, 200, 300, 400, 600, 800, 1_000), (400, 600, 800, 1_200, 1_600, 2_400, 3_200, 4_800)
LISTS, SMALL_GRAPHS = (2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320), (25, 50, 75, 100, 150, 200, 300, 400, 600)


@dataclass(frozen=True)
class Kind:
    """`index`: what follows USING. `setting`: its effort, tried by `steps`. `code`: the bits that it compares. `parts`:
    it is on the partitions. `sources`: asked at once."""

    name: str
    key: str
    index: str
    steps: Sequence[int] = GRAPH
    setting: str = "hnsw.ef_search"
    code: str | None = None
    parts: bool = False
    sources: tuple[str, ...] = (TABLE,)

    def indexes(self) -> Mapping[str, str]:
        """The name of each index, and the statement that builds it."""
        column = "embedding halfvec_cosine_ops"
        if self.code is not None:
            column = f"({self.code.format(value='embedding')}) bit_hamming_ops"
        tables = PART_TABLES if self.parts else (TABLE,)
        return {f"{one}_{self.key}": f"ON {one} USING {self.index.format(key=column)}" for one in tables}

    def statement(self, effort: int, source: str) -> str:
        if self.code is None:
            return NEAREST.format(table=source, limit=LIMIT)
        stored, asked = (self.code.format(value=value) for value in ("embedding", "%(vector)s"))
        return RESCORED.format(table=source, stored=stored, asked=asked, effort=effort, limit=LIMIT)

    def settings(self, effort: int) -> str:
        iterative = "off" if self.code is None else "relaxed_order"  # as the store scans
        return f"""SELECT set_config('{self.setting}', '{min(effort, 1_000)}', true),
            set_config('hnsw.iterative_scan', '{iterative}', true), set_config('hnsw.max_scan_tuples', '400000', true),
            set_config('hnsw.scan_mem_multiplier', '16', true), set_config('enable_sort', 'off', true)"""


KINDS = [
    Kind("hnsw, m 16", "m16", M16),  # the others are compared with it
    Kind("ivfflat, 1,000 lists", "ivf1000", "ivfflat ({key}) WITH (lists = 1000)", LISTS, "ivfflat.probes"),
    Kind("hnsw, scalar", "scalar", M16, BITS, code=LEVELS),
    Kind("hnsw, binary", "binary", M16, BITS, code=SIGN),
    Kind(f"{PARTS} parts, one by one", "m16", M16, SMALL_GRAPHS, parts=True, sources=("parts",)),
    Kind(f"{PARTS} parts at once", "m16", M16, SMALL_GRAPHS, parts=True, sources=PART_TABLES),
    Kind("hnsw, m 24", "m24", M24),
]


@dataclass
class Bench:
    """`stored`: halves, on disk. `built`: what each index took and takes."""

    folder: Path
    server: EmbeddedServer
    stored: Vectors
    anchors: Vectors
    asked: Vectors
    built: dict[str, dict[str, float]]

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            register_vector(connection)
            yield connection

    def load(self, parts: bool) -> None:
        """The table and, where wanted, its copy in partitions, unless they are there."""
        with self.connection() as connection:
            if connection.execute("SELECT to_regclass(%s)", (TABLE,)).fetchone() != (None,):
                return
            for statement in vector_tables.create_table(*SPACE, self.stored.shape[1]):
                connection.execute(statement)
            started = time.perf_counter()
            copy(connection, enumerate(self.stored))
            self.keep("COPY", seconds=time.perf_counter() - started)
            if parts:
                connection.execute(
                    f"CREATE TABLE parts (LIKE {TABLE} INCLUDING STORAGE) PARTITION BY HASH (document_id)"
                )
                for at, part in enumerate(PART_TABLES):
                    values = f"FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {at})"
                    connection.execute(f"CREATE TABLE {part} PARTITION OF parts {values}")
                connection.execute(f"INSERT INTO parts SELECT * FROM {TABLE}")
            connection.execute("VACUUM ANALYZE")

    def build(self, kind: Kind) -> None:
        for name, statement in kind.indexes().items():
            if name in self.built:
                continue
            started, processor = time.perf_counter(), self.processor_seconds()
            with self.connection() as connection:
                connection.execute(f"SET maintenance_work_mem = '{BUILD_MEMORY}'")
                connection.execute(f"DROP INDEX IF EXISTS {name}")
                connection.execute(f"CREATE INDEX {name} {statement}")
                seconds = time.perf_counter() - started
                ((size,),) = connection.execute("SELECT pg_relation_size(%s::regclass)", (name,)).fetchall()
            time.sleep(1)  # until the server has counted the processes that ended
            self.keep(name, seconds=seconds, processor=self.processor_seconds() - processor, mb=size / 2**20)

    def keep(self, name: str, **figures: float) -> None:
        self.built[name] = figures
        print(name, {unit: round(figure) for unit, figure in figures.items()}, flush=True)
        (self.folder / "built.json").write_text(json.dumps(self.built))

    def processor_seconds(self) -> float:
        """Of all processes of the server that have ended."""
        postmaster = (self.server.folder / "postmaster.pid").read_text().split()[0]
        times = psutil.Process(int(postmaster)).cpu_times()
        return float(times.children_user + times.children_system)

    @contextmanager
    def search(self, kind: Kind, effort: int) -> Iterator[Callable[[int], tuple[float, list[int]]]]:
        """The seconds of one query and what it found. The planner sees no other index than those of the kind."""
        with ExitStack() as opened, ThreadPoolExecutor(PARTS) as threads:
            connections = [opened.enter_context(self.connection()) for _ in kind.sources]
            connections[0].execute(
                """UPDATE pg_index SET indisvalid = relname = ANY (%s) FROM pg_class
                WHERE pg_class.oid = indexrelid AND relname = ANY (%s) AND indisvalid <> (relname = ANY (%s))""",
                (list(kind.indexes()), list(self.built), list(kind.indexes())),
            )

            def ask(connection: psycopg.Connection, source: str, vector: HalfVector) -> list[Any]:
                cursor = connection.cursor(binary=True)
                with connection.pipeline():
                    connection.execute(kind.settings(effort))
                    cursor.execute(kind.statement(effort, source), {"vector": vector})
                return list(cursor.fetchall())

            def one(query: int) -> tuple[float, list[int]]:
                vector, started = HalfVector(self.asked[query]), time.perf_counter()
                found = threads.map(ask, connections, kind.sources, [vector] * PARTS)
                rows = sorted((row for part in found for row in part), key=lambda row: row[1])[:LIMIT]
                return time.perf_counter() - started, [int(row[0][4:]) for row in rows]

            yield one

    def measure(self, kind: Kind, effort: int, true: list[list[int]], step: slice = slice(None)) -> list[list[float]]:
        """Of each of these queries recall@10, recall@100 and seconds."""
        with self.search(kind, effort) as search:
            search(0)
            answers = [(true[at], *search(at)) for at in range(len(true))[step]]
        return [[*(len(set(found[:k]) & set(best[:k])) / k for k in (K, LIMIT)), took] for best, took, found in answers]


def copy(connection: psycopg.Connection, rows: Iterable[tuple[int, Any]]) -> None:
    with connection.cursor() as cursor, cursor.copy(COPY) as writer:
        writer.set_types(("int8", "text", "int4", "int4", "int8", "int8", "int8", "bytea", "halfvec"))
        for number, vector in rows:
            value = HalfVector(vector)
            seal = vector_tables.seal(*SPACE, value)
            writer.write_row((SPACE[0], f"doc-{number:07d}", 0, SPACE[1], 1, 0, 700, seal, value))


def truth(stored: Vectors, asked: Vectors) -> list[list[int]]:
    """The nearest `LIMIT` of each query, best first, by brute force."""
    scores, best = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.intp)
    for start in range(0, len(stored), 50_000):
        part = asked @ unit_rows(stored[start : start + 50_000].astype(np.float32)).T
        scores = np.concatenate([scores, part], axis=1)
        best = np.concatenate([best, np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)], axis=1)
        order = np.argsort(-scores, axis=1)[:, :LIMIT]
        scores, best = np.take_along_axis(scores, order, axis=1), np.take_along_axis(best, order, axis=1)
    found: list[list[int]] = best.tolist()
    return found


def figures(measured: Sequence[Sequence[float]]) -> list[float]:
    """Recall@10, recall@100, p50 and p95."""
    near, wide, seconds = zip(*measured, strict=True)
    return [sum(near) / len(near), sum(wide) / len(wide), median(seconds), percentile(seconds, 0.95)]


def sweep(bench: Bench, kind: Kind, true: list[list[int]]) -> int:
    """The smallest effort that reaches the target, or the largest."""
    for effort in kind.steps:
        found = figures(bench.measure(kind, effort, true))
        print(f"{kind.name}, {effort}: " + " ".join(f"{one:.3f}" for one in found), flush=True)
        if found[0] >= TARGET:
            break
    return effort


def compare(bench: Bench, chosen: Mapping[Kind, int], true: list[list[int]]) -> None:
    """All kinds in turns, a tenth of the queries at a time, each query twice."""
    measured: dict[Kind, list[list[float]]] = {kind: [] for kind in chosen}
    for turn in range(20):
        for kind, effort in chosen.items():
            measured[kind] += bench.measure(kind, effort, true, slice(turn % 10, None, 10))
    base, rows = figures(measured[next(iter(chosen))]), []
    for kind, effort in chosen.items():
        own, built = figures(measured[kind]), [bench.built[name] for name in kind.indexes()]
        costs = [sum(one[unit] for one in built) for unit in ("seconds", "processor", "mb")]
        rows.append([kind.name, effort, *own, own[2] / base[2], own[3] / base[3], *costs])
    heading(f"{len(bench.stored):,} rows, {len(true)} queries, {LIMIT} rows wanted, in turns: ms, s, MB")
    columns = ["index", "effort", f"recall@{K}", f"recall@{LIMIT}", "p50", "p95", "ratio", "ratio"]
    table([*columns, "build", "processor", "size"], rows)


async def embed(folder: Path) -> tuple[Vectors, Vectors]:
    """The vectors of the anchors of the corpus, and of queries."""
    models = components.model_registry(settings_in(folder))
    encoder = await models.get(models.resolve(EmbedderSpec()))
    own = await asyncio.to_thread(corpus.build, encoder, QUERIES, SEED)
    asked = await asyncio.to_thread(encoder.encode, own.queries, "query")
    await models.close()
    return own.vectors, asked


@contextmanager
def opened(folder: Path, documents: int) -> Iterator[Bench]:
    """What is kept in the folder, or new: vectors, database, and what was built in it."""
    vectors, embedded, kept = (folder / name for name in ("vectors.npy", "embedded.npz", "built.json"))
    if not embedded.exists():
        anchors, asked = asyncio.run(embed(folder))
        np.savez(embedded, anchors=anchors, asked=asked)
    texts, generator = np.load(embedded), np.random.default_rng(SEED)
    if not vectors.exists():
        rows = (corpus.variations(texts["anchors"], BATCH, generator)[1] for _ in range(documents // BATCH))
        np.save(vectors, np.concatenate([part.astype(np.float16) for part in rows]))
    with EmbeddedServer(folder / "postgres") as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        built = json.loads(kept.read_text()) if kept.exists() else {}
        yield Bench(folder, server, np.load(vectors, mmap_mode="r"), texts["anchors"], texts["asked"], built)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--without", nargs="*", default=[], help="of the kinds: m24, scalar, parts ...")
    arguments.add_argument("--folder", type=Path, required=True)
    chosen = arguments.parse_args()
    kinds = [kind for kind in KINDS if ("parts" if kind.parts else kind.key) not in chosen.without]
    with opened(chosen.folder, chosen.documents) as bench:
        bench.load(any(kind.parts for kind in kinds))
        for kind in kinds:
            bench.build(kind)
        true = truth(bench.stored, bench.asked)
        compare(bench, {kind: sweep(bench, kind, true) for kind in kinds}, true)


if __name__ == "__main__":
    main()
