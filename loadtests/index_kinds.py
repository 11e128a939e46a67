"""Which index for a million chunks? `python -m loadtests.index_kinds --documents 1000000 --folder FOLDER`.

The vectors of `corpus.py` in one table as the store makes it, loaded by COPY. Each kind of index that pgvector has is
built on it, and four HNSW indexes on a copy in four partitions. Every kind gets the smallest effort with which its
recall@10 reaches the target, and these are then measured in turns. At last 30 % of the rows are deleted and written
anew. What was built is kept in the folder, so that another run only measures.
"""

import argparse
import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
PARTS = 4
LIMIT, K, TARGET = 100, 10, 0.95
"""Rows that a search asks for, and those whose recall counts."""
BATCH = 1_000
COPY = f"""COPY {TABLE} (collection_id, document_id, chunk, embedder_version, content_revision, starts, ends, seal,
    embedding) FROM STDIN (FORMAT binary)"""
TYPES = ("int8", "text", "int4", "int4", "int8", "int8", "int8", "bytea", "halfvec")
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
GRAPH, BITS = (100, 150, 200, 300, 400, 500, 600, 800, 1_000), (400, 600, 800, 1_200, 1_600, 2_400, 3_200, 4_800)
LISTS, SMALL_GRAPHS = (2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320), (25, 50, 75, 100, 150, 200, 300, 400, 600)


@dataclass(frozen=True)
class Kind:
    """`index`: what follows USING. `setting`: its effort, tried by `steps`. `code`: the bits that it compares."""

    name: str
    key: str
    index: str
    steps: Sequence[int] = GRAPH
    setting: str = "hnsw.ef_search"
    code: str | None = None
    parts: int = 0
    at_once: bool = False

    @property
    def tables(self) -> list[str]:
        return [f"part_{at}" for at in range(self.parts)] or [TABLE]

    def indexes(self) -> Mapping[str, str]:
        """The name of each index, and the statement that builds it."""
        column = "embedding halfvec_cosine_ops"
        if self.code is not None:
            column = f"({self.code.format(value='embedding')}) bit_hamming_ops"
        return {f"{one}_{self.key}": f"ON {one} USING {self.index.format(key=column)}" for one in self.tables}

    def statement(self, effort: int, source: str) -> str:
        if self.code is None:
            return NEAREST.format(table=source, limit=LIMIT)
        stored, asked = (self.code.format(value=value) for value in ("embedding", "%(vector)s"))
        return RESCORED.format(table=source, stored=stored, asked=asked, effort=effort, limit=LIMIT)

    def settings(self, effort: int) -> str:
        settings: dict[str, object] = {self.setting: min(effort, 1_000), "enable_sort": "off"}
        if self.code is not None:  # as the store scans an index of bits
            settings |= {"hnsw.iterative_scan": "relaxed_order", "hnsw.max_scan_tuples": 400_000}
            settings["hnsw.scan_mem_multiplier"] = 16
        return "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


def kinds(lists: int) -> list[Kind]:
    """The first is what the others are compared with."""
    ivfflat = f"ivfflat ({{key}}) WITH (lists = {lists})"
    return [
        Kind("hnsw, m 16", "m16", M16),
        Kind(f"ivfflat, {lists} lists", f"ivf{lists}", ivfflat, LISTS, "ivfflat.probes"),
        Kind("hnsw, scalar", "scalar", M16, BITS, code=LEVELS),
        Kind("hnsw, binary", "binary", M16, BITS, code=SIGN),
        Kind(f"{PARTS} parts, one by one", "m16", M16, SMALL_GRAPHS, parts=PARTS),
        Kind(f"{PARTS} parts at once", "m16", M16, SMALL_GRAPHS, parts=PARTS, at_once=True),
        Kind("hnsw, m 24", "m24", M24),
    ]


@dataclass
class Bench:
    """`stored`: halves, on disk. `built`: what each index took and takes."""

    folder: Path
    server: EmbeddedServer
    stored: Vectors
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
            connection.execute("VACUUM ANALYZE")
            if not parts:
                return
            connection.execute(f"CREATE TABLE parts (LIKE {TABLE} INCLUDING STORAGE) PARTITION BY HASH (document_id)")
            for at in range(PARTS):
                values = f"FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {at})"
                connection.execute(f"CREATE TABLE part_{at} PARTITION OF parts {values}")
            connection.execute(f"INSERT INTO parts SELECT * FROM {TABLE}")
            connection.execute("VACUUM ANALYZE parts")

    def build(self, kind: Kind, memory_mb: int) -> None:
        for name, statement in kind.indexes().items():
            if name in self.built:
                continue
            started, processor = time.perf_counter(), self.processor_seconds()
            with self.connection() as connection:
                connection.execute(f"SET maintenance_work_mem = '{memory_mb}MB'")
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
        fields = Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def search(self, kind: Kind, effort: int) -> Iterator[Callable[[int], tuple[float, list[int]]]]:
        """The seconds of one query and what it found. The planner sees no other index than those of the kind."""
        with self.connection() as connection, ThreadPoolExecutor(max(1, kind.parts)) as threads:
            connection.execute(
                """UPDATE pg_index SET indisvalid = relname = ANY (%s) FROM pg_class
                WHERE pg_class.oid = indexrelid AND relname = ANY (%s) AND indisvalid <> (relname = ANY (%s))""",
                (list(kind.indexes()), list(self.built), list(kind.indexes())),
            )
            local = threading.local()

            def ask(source: str, vector: HalfVector) -> list[Any]:
                if not hasattr(local, "connection"):
                    local.connection = psycopg.connect(self.server.url)
                    register_vector(local.connection)
                cursor = local.connection.cursor(binary=True)
                with local.connection.pipeline():
                    local.connection.execute(kind.settings(effort))
                    cursor.execute(kind.statement(effort, source), {"vector": vector})
                local.connection.rollback()
                return list(cursor.fetchall())

            def one(query: int) -> tuple[float, list[int]]:
                vector = HalfVector(self.asked[query])
                started = time.perf_counter()
                if kind.at_once:
                    found = threads.map(lambda own: ask(own, vector), kind.tables)
                    rows = sorted((row for part in found for row in part), key=lambda row: row[1])[:LIMIT]
                else:
                    rows = ask("parts" if kind.parts else TABLE, vector)
                return time.perf_counter() - started, [int(row[0][4:]) for row in rows]

            yield one


def copy(connection: psycopg.Connection, rows: Iterable[tuple[int, Any]]) -> None:
    with connection.cursor() as cursor, cursor.copy(COPY) as writer:
        writer.set_types(TYPES)
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


def recall(found: Sequence[list[int]], true: Sequence[list[int]], k: int) -> float:
    return sum(len(set(own[:k]) & set(best[:k])) for own, best in zip(found, true, strict=True)) / (k * len(true))


def tried(bench: Bench, kind: Kind, effort: int, true: list[list[int]]) -> list[float]:
    """Recall@10, recall@100, p50 and p95 over all queries."""
    with bench.search(kind, effort) as search:
        search(0)
        seconds, found = zip(*map(search, range(len(true))), strict=True)
    return [*(recall(found, true, k) for k in (K, LIMIT)), median(seconds), percentile(seconds, 0.95)]


def sweep(bench: Bench, kind: Kind, true: list[list[int]]) -> tuple[int, list[Sequence[object]]]:
    """The smallest effort that reaches the target, or the largest; a row for each that was tried."""
    rows: list[Sequence[object]] = []
    for effort in kind.steps:
        rows.append([kind.name, effort, *(own := tried(bench, kind, effort, true))])
        print(rows[-1], flush=True)
        if own[0] >= TARGET:
            break
    return effort, rows


def compare(bench: Bench, chosen: Mapping[Kind, int], true: list[list[int]], rounds: int) -> None:
    """All kinds in turns, a tenth of the queries at a time; each query as often as there are rounds."""
    seconds: dict[Kind, list[float]] = {kind: [] for kind in chosen}
    found: dict[Kind, dict[int, list[int]]] = {kind: {} for kind in chosen}
    for turn in range(10 * rounds):
        for kind, effort in chosen.items():
            with bench.search(kind, effort) as search:
                search(turn % 10)
                for query in range(turn % 10, len(true), 10):
                    took, found[kind][query] = search(query)
                    seconds[kind].append(took)
    base: list[float] = []
    rows: list[Sequence[object]] = []
    for kind, effort in chosen.items():
        built = [bench.built[name] for name in kind.indexes()]
        costs = [sum(one[unit] for one in built) for unit in ("seconds", "processor", "mb")]
        times = [median(seconds[kind]), percentile(seconds[kind], 0.95)]
        base = base or times
        ratios = [own / other for own, other in zip(times, base, strict=True)]
        recalls = [recall([found[kind][query] for query in range(len(true))], true, k) for k in (K, LIMIT)]
        rows.append([kind.name, effort, *recalls, *times, *ratios, *costs])
    heading(f"{len(bench.stored):,} rows, {len(true)} queries, {LIMIT} rows wanted, in turns: ms, s, MB")
    columns = ["index", "effort", f"recall@{K}", f"recall@{LIMIT}", "p50", "p95", "ratio", "ratio"]
    table([*columns, "build", "processor", "size"], rows)


def replace(bench: Bench, kind: Kind, effort: int, fresh: Vectors) -> None:
    """Before, after as many rows were deleted and written anew as the store does, and after a VACUUM."""
    gone = np.random.default_rng(SEED).permutation(len(bench.stored))[: len(fresh)]
    rows: list[Sequence[object]] = []

    def measure(when: str, seconds: float) -> None:
        rows.append([when, seconds, effort, *tried(bench, kind, effort, truth(bench.stored, bench.asked))])

    def write(batch: slice) -> None:
        with bench.connection() as connection, connection.transaction():
            ids = [f"doc-{at:07d}" for at in gone[batch]]
            connection.execute(f"DELETE FROM {TABLE} WHERE collection_id = 1 AND document_id = ANY (%s)", (ids,))
            copy(connection, zip(gone[batch].tolist(), fresh[batch], strict=True))

    with bench.connection() as connection:
        for name in set(bench.built) - set(kind.indexes()) - {"COPY"}:
            connection.execute(f"DROP INDEX IF EXISTS {name}")
        connection.execute(f"ALTER TABLE {TABLE} SET (autovacuum_enabled = false)")
        measure("before", 0)
        started = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(write, [slice(at, at + BATCH) for at in range(0, len(gone), BATCH)]))
        bench.stored = np.array(bench.stored)
        bench.stored[gone] = fresh.astype(np.float16)
        measure("replaced", time.perf_counter() - started)
        started = time.perf_counter()
        connection.execute(f"VACUUM {TABLE}")
        measure("vacuumed", time.perf_counter() - started)
    heading(f"{len(gone):,} rows replaced, then vacuumed; ms")
    table(["rows", "seconds", "effort", f"recall@{K}", f"recall@{LIMIT}", "p50", "p95"], rows)


async def embed(folder: Path, queries: int) -> tuple[Vectors, Vectors]:
    """The vectors of the anchors of the corpus, and of queries."""
    models = components.model_registry(settings_in(folder))
    encoder = await models.get(models.resolve(EmbedderSpec()))
    own = await asyncio.to_thread(corpus.build, encoder, queries, SEED)
    asked = await asyncio.to_thread(encoder.encode, own.queries, "query")
    await models.close()
    return own.vectors, asked


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=400)
    arguments.add_argument("--lists", type=int, default=1_000, help="of ivfflat")
    arguments.add_argument("--memory", type=int, default=2_600, help="maintenance_work_mem of a build, MB")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--replaced", type=float, default=0.3, help="share of the rows, after everything else")
    arguments.add_argument(
        "--without", nargs="*", default=[], help="kinds that are left out: m16, m24, scalar, parts ..."
    )
    arguments.add_argument("--only-build", action="store_true")
    arguments.add_argument("--folder", type=Path, required=True)
    chosen = arguments.parse_args()
    vectors, embedded, kept = (chosen.folder / name for name in ("vectors.npy", "embedded.npz", "built.json"))
    if not embedded.exists():
        anchors, asked = asyncio.run(embed(chosen.folder, chosen.queries))
        np.savez(embedded, anchors=anchors, asked=asked)
    texts = np.load(embedded)
    generator = np.random.default_rng(SEED)
    if not vectors.exists():
        rows = [corpus.variations(texts["anchors"], 1_000, generator)[1] for _ in range(chosen.documents // 1_000)]
        np.save(vectors, np.concatenate(rows, dtype=np.float16, casting="same_kind"))
    with EmbeddedServer(chosen.folder / "postgres") as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        built = json.loads(kept.read_text()) if kept.exists() else {}
        bench = Bench(chosen.folder, server, np.load(vectors, mmap_mode="r"), texts["asked"], built)
        known = [kind for kind in kinds(chosen.lists) if ("parts" if kind.parts else kind.key) not in chosen.without]
        bench.load(any(kind.parts for kind in known))
        for kind in known:
            bench.build(kind, chosen.memory)
        if chosen.only_build:
            return
        true = truth(bench.stored, bench.asked)
        swept = {kind: sweep(bench, kind, true) for kind in known}
        heading("Efforts tried: recall and ms")
        columns = ["index", "effort", f"recall@{K}", f"recall@{LIMIT}", "p50", "p95"]
        table(columns, [row for _, rows in swept.values() for row in rows])
        compare(bench, {kind: effort for kind, (effort, _) in swept.items()}, true, chosen.rounds)
        if chosen.replaced:
            count = int(chosen.replaced * len(bench.stored))
            fresh = corpus.variations(texts["anchors"], count, np.random.default_rng(SEED + 1))[1]
            replace(bench, known[0], swept[known[0]][0], fresh)


if __name__ == "__main__":
    main()
