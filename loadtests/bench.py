"""The summary: this version beside an earlier one and beside what the machine itself can do. `make bench`.

    python -m loadtests.bench [--before REF] [--minutes 30] [--quick]

Both versions run on the same machine and in the same environment, each with its own service and its own data, and are
measured in turns, so that whatever else the machine does hits both. The earlier one is taken from git into a temporary
folder; where none is named, it is the one that docs/performance.md compares with. The floor is the same work with
nothing around it. Each figure is the median of the rounds that there was time for.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import psutil

from loadtests import ingest, prepare
from loadtests.clients import Answers, ask, ask_at_once
from loadtests.figures import heading, median, percentile, table
from loadtests.sandbox import Sandbox, sandbox, until
from service.client.http_client import Client
from service.core.collections import EmbedderSpec
from service.core.documents import Document
from service.core.ports.embedder import Encoder
from service.runtime.container import components

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"compared with commit `(\w+)`")
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
MEASURES = ("search", "recall", "rerank", "load", "beside")
MARK = "figures: "
"""At the head of a line of figures: others print, too."""
QUERY = "how to cancel a task after a timeout"
SHORT_WORDS = 25
MOST_ROUNDS = 3
QUIET_SECONDS = 100.0
"""Without a request before a process counts as idle: memory that is not needed has been given back then."""
Figures = dict[str, float]


class Version:
    """The version in this folder: its service, and what is measured of it. Runs in a process of its own."""

    def __init__(self, place: Sandbox, documents: int, texts: int, stack: ExitStack) -> None:
        """`documents`: in the collection that is searched; `texts`: of one ingest."""
        self.place, self.documents, self.stack = place, documents, stack
        self.texts = ingest.documents(None, texts)
        short = [
            replace(one, text=" ".join(one.text.split()[:SHORT_WORDS])) for one in ingest.documents(None, 4 * texts)
        ]
        self.kinds = {"long": self.texts, "short": short}
        self.number = 0

    def start(self) -> Figures:
        """The service with its collection; figures of its start and of idle processes."""
        self.queries = prepare.queries(self.place, self.documents)
        with self.place.api() as address, Client(address) as client:
            prepare.caught_up(client)
        started = time.perf_counter()
        self.address = self.stack.enter_context(self.place.api())
        figures = {"start to ready, s": time.perf_counter() - started}
        self.encoder = asyncio.run(self._encoder())
        self._search(self.queries[:30])
        self._search(self.queries[:3], rerank=True)
        with self._worker():
            time.sleep(QUIET_SECONDS)
            figures["API at idle, resident MB"] = resident("serve")
            figures["worker at idle, resident MB"] = resident("worker")
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "service", "--help"], check=True, capture_output=True)
        return figures | {"`azimuth --help`, s": time.perf_counter() - started}

    async def _encoder(self) -> Encoder:
        models = components.model_registry(prepare.settings_in(self.place.folder))
        return await models.get(models.resolve(EmbedderSpec()))

    def search(self) -> Figures:
        """One client, then 16."""
        begun = ingest.service_cpu(self.place)
        answers = self._search(self._fresh())
        spent = ingest.service_cpu(self.place) - begun
        requests = [{"query": query} for query in self._fresh()]
        seconds, _ = ask_at_once(self.address, prepare.COLLECTION, requests, 16)
        return {
            "hybrid search, p50 ms": percentile(answers.seconds, 0.5),
            "hybrid search, p95 ms": percentile(answers.seconds, 0.95),
            "hybrid search, processor ms": 1e3 * spent / len(self.queries),
            "hybrid searches/s, 16 clients": len(requests) / seconds,
            "short query by the model, processor ms": processor_ms(lambda: self.encoder.encode([QUERY], "query")),
        }

    def recall(self) -> Figures:
        """Of the index, against exact scans."""
        queries = self.queries[:100]
        found, exact = (self._search(queries, mode="dense", include=[], **way).bodies for way in ({}, {"exact": True}))
        ids = [[{hit["id"] for hit in body["hits"]} for body in bodies] for bodies in (found, exact)]
        shared = sum(len(one & other) for one, other in zip(*ids, strict=True))
        return {"recall@10 of the index": shared / sum(map(len, ids[1]))}

    def rerank(self) -> Figures:
        """As deep as 50 passages, as far as the first 10 need it."""
        answers = self._search(self.queries[:10], rerank={"depth": 50})
        return {"hybrid search with reranking, p50 ms": percentile(answers.seconds, 0.5)}

    def load(self) -> Figures:
        """Nothing else goes on: documents as long as abstracts, short ones, and these with another embedder."""
        figures = {}
        with self._worker(), Client(self.address) as client:
            for kind, texts in self.kinds.items():
                figures[f"ingest of {kind} documents/s"] = len(texts) / self._ingest(client, texts)
            collection, started = f"ingest-{self.number}", time.perf_counter()
            number, _ = client.register(collection, {"embedder": {"document_prompt": "passage: "}})
            until(lambda: client.version(collection, number)["state"] != "backfilling", seconds=900)
            figures["re-index of short documents/s"] = len(texts) / (time.perf_counter() - started)
            client.retire(collection, number)
        return figures

    def beside(self) -> Figures:
        """Searches while documents are loaded."""
        quiet, busy = self._search(self._fresh()).seconds, list[float]()
        with self._worker(), Client(self.address) as client, ThreadPoolExecutor(1) as thread:
            loading = thread.submit(self._ingest, client, self.texts)
            while not loading.done():
                busy += self._search(self._fresh()[:10]).seconds
            rate = len(self.texts) / loading.result()
        return {
            "p95 beside an ingest / quiet": percentile(busy, 0.95) / percentile(quiet, 0.95),
            "ingest of long documents/s, beside a client": rate,
        }

    def floor(self) -> Figures:
        """What bare parts take, under the names of the figures that they are the floor of."""
        from loadtests import floor  # an earlier version cannot run it

        with floor.rivals(self.place, self.address) as rivals:
            seconds, spent = rivals.wall(self.queries, 1), rivals.processor(self.queries)
        rates = {kind: len(texts) / ingest.apart(texts).seconds for kind, texts in self.kinds.items()}
        return {
            "hybrid search, p50 ms": floor.bare_sum({name: median(own) for name, own in seconds.items()}),
            "hybrid search, processor ms": floor.bare_sum(spent),
            "short query by the model, processor ms": floor.fastest_model(spent),
            **{f"ingest of {kind} documents/s": rate for kind, rate in rates.items()},
            "re-index of short documents/s": rates["short"],
        }

    def _fresh(self) -> list[str]:
        """The queries as nobody has asked them yet."""
        self.number += 1
        return [reordered(query, self.number) for query in self.queries]

    def _search(self, queries: Sequence[str], **request: Any) -> Answers:
        return ask(self.address, prepare.COLLECTION, [{"query": query, **request} for query in queries])

    @contextmanager
    def _worker(self) -> Iterator[None]:
        """A worker that has loaded its model, and what it loads once there is much to encode."""
        with self.place.process("worker"), Client(self.address) as client:
            self._ingest(client, self.texts)
            yield

    def _ingest(self, client: Client, texts: Sequence[Document]) -> float:
        self.number += 1
        started = time.perf_counter()
        ingest.through_the_service(client, f"ingest-{self.number}", texts)
        return time.perf_counter() - started


def reordered(query: str, number: int) -> str:
    """The same words in another order for each number: as much work, and in no cache of queries yet."""
    words = query.split()
    random.Random(number).shuffle(words)
    return " ".join(words)


def processor_ms(run: Callable[[], object], times: int = 100) -> float:
    """Milliseconds of one run, of all threads of this process; other work on the machine hardly counts."""
    run()
    started = time.process_time()
    for _ in range(times):
        run()
    return 1e3 * (time.process_time() - started) / times


def resident(command: str) -> float:
    """Megabytes of this process's child that runs the command, and of its own children."""
    (process,) = (child for child in psutil.Process().children() if command in child.cmdline())
    return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20)


def serve(documents: int, texts: int) -> None:
    """Measure what is asked for by name, line by line, until there is no more."""
    answers = sys.stdout
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        version = Version(stack.enter_context(sandbox()), documents, texts, stack)
        for line in sys.stdin:
            figures: Figures = {}
            try:
                figures = getattr(version, line.strip())()
            except Exception:  # the other figures are worth having
                traceback.print_exc()
            print(MARK + json.dumps(figures), file=answers, flush=True)


class Side:
    """A version in its folder, asked from here."""

    def __init__(self, folder: Path, options: Sequence[str], log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-m", "loadtests.bench", "--serve", *options]
        self.log = log
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )
        self.figures: dict[str, list[float]] = {}

    def measure(self, name: str) -> Figures:
        """What was measured this time; nothing, with the end of the log on the terminal, where it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
        found = next((line for line in self._process.stdout if line.startswith(MARK)), f"{MARK}{{}}")
        figures: Figures = json.loads(found.removeprefix(MARK))
        if not figures:
            print(f"{self.log.stem}: {name} failed\n{self.log.read_text()[-2_000:]}", flush=True)
        if name != "floor":
            for figure, value in figures.items():
                self.figures.setdefault(figure, []).append(value)
        return figures

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def taken_from_git(reference: str, folder: Path) -> Path:
    """The files of that version, with this benchmark in place of its own."""
    archive = subprocess.run(["git", "archive", reference], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    shutil.copy(__file__, folder / "loadtests" / "bench.py")
    return folder


def machine() -> str:
    """Processor model, cores, and the instruction sets that decide how fast a model runs."""
    described = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", described)
    flags = (re.search(r"flags\s*: (.*)", described) or ["", ""])[1].split()
    sets = [one for one in INSTRUCTIONS if one in flags] or ["none of " + ", ".join(INSTRUCTIONS)]
    return f"{name[1] if name else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {', '.join(sets)}"


def show(now: Mapping[str, Sequence[float]], before: Mapping[str, Sequence[float]], floor: Figures) -> None:
    rows = []
    for figure, values in now.items():
        own, earlier = statistics.median(values), statistics.median(before.get(figure, [nan]))
        bare = floor.get(figure, nan)
        rows.append([figure, own, earlier, own / earlier, bare, own / bare])
    cells = [[("-" if value != value else value) for value in row] for row in rows]
    table(["", "now", "before", "now/before", "floor", "now/floor"], cells)


def measure(options: Sequence[str], reference: str, minutes: float, folder: Path) -> None:
    end = time.monotonic() + 60 * minutes
    sides = [Side(ROOT, options, folder / "now.log")]
    try:
        if reference:
            sides.append(Side(taken_from_git(reference, folder / "before"), options, folder / "before.log"))
        for side in sides:
            side.measure("start")
        floor = sides[0].measure("floor")
        longest = 0.0
        for number in range(MOST_ROUNDS):
            started = time.monotonic()
            if number and started + longest > end:
                break
            for name in MEASURES:
                for side in sides[:: -1 if number % 2 else 1]:
                    side.measure(name)
            longest = max(longest, time.monotonic() - started)
    finally:
        for side in sides:
            side.close()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    heading(machine())
    print(f"  now: {commit.stdout.strip()}, before: {reference or 'nothing'}; options {' '.join(options)}\n")
    now, before = sides[0].figures, sides[-1].figures if reference else {}
    show(now, before, floor)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    named = NAMED.search((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"))
    arguments.add_argument("--before", default=named[1] if named else "", help="a commit; empty: none")
    arguments.add_argument("--minutes", type=float, default=25.0, help="no further round where it would last longer")
    arguments.add_argument("--documents", type=int, default=100_000, help="in the collection that is searched")
    arguments.add_argument("--texts", type=int, default=300, help="documents of one ingest")
    arguments.add_argument("--quick", action="store_true", help="small sizes: whether it runs, not how fast")
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    documents, texts = (2_000, 30) if chosen.quick else (chosen.documents, chosen.texts)
    if chosen.serve:
        serve(documents, texts)
        return
    with tempfile.TemporaryDirectory(prefix="azimuth-bench-") as folder:
        measure(["--documents", str(documents), "--texts", str(texts)], chosen.before, chosen.minutes, Path(folder))


if __name__ == "__main__":
    main()
