"""Change the embedder of a live collection and go back, while clients search and write; then count what went wrong.

    python -m loadtests.reindex FOLDER [--to MODEL] [--kills 30]

FOLDER is a collection in BEIR layout. The whole service runs as an operator runs it (`azimuth up`). One client searches
without pause, another writes, updates and deletes; both remember what they were told. At the end:

failed searches  answers other than 200 (with --kills those are counted apart: while a process is down, nobody answers)
mixed answers    hits whose score is not the cosine of their stored vector and the query, both made by the version that
                 the answer names; recomputed here, by encoders of our own
lost, stale      documents that are not as they were acknowledged: in the table, in every space, in both legs

With --kills, `worker`, `serve` and PostgreSQL are killed (-9) at random moments in every state, through as many rounds
of register, promote, roll back and retire as it takes.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from loadtests import figures
from loadtests.live import CALM_SECONDS, PATH, Killer, Machine, Searcher, Seen, Writer, insist
from loadtests.sandbox import until
from service.core.collections import ChunkingSettings, EmbedderSpec
from service.core.documents import StoredDocument
from service.core.ids import DocumentId, Vector
from service.core.ports.embedder import Encoder
from service.embedder.models.registry import ModelRegistry
from service.embedder.worker.document_chunker import chunk_documents
from service.evaluation import beir
from service.store.postgres.json_records import read

TOLERANCE = 0.002
"""Between a score and its cosine recomputed: half precision in the table, bfloat16 in the model."""


@dataclass
class Verdict:
    rows: list[tuple[str, int]] = field(default_factory=list)
    wrong: int = 0

    def note(self, what: str, count: int, *, bad: bool = True) -> None:
        self.rows.append((what, count))
        self.wrong += count if bad else 0


def encoders(
    connection: psycopg.Connection, models: Sequence[str]
) -> dict[int, tuple[Encoder, EmbedderSpec, ChunkingSettings]]:
    """Encoders of our own for every version that was ever there."""
    rows = connection.execute("SELECT number, spec, chunking FROM embedder_versions ORDER BY number").fetchall()
    registry = ModelRegistry(default="all-MiniLM-L6-v2", allowed=models)

    async def load() -> dict[int, tuple[Encoder, EmbedderSpec, ChunkingSettings]]:
        return {
            number: (await registry.get(spec), spec, read(ChunkingSettings, chunking))
            for number, spec, chunking in ((one, read(EmbedderSpec, spec), chunking) for one, spec, chunking in rows)
        }

    return asyncio.run(load())


def mixed(hits: Sequence[Seen], made: Mapping[int, tuple[Encoder, EmbedderSpec, ChunkingSettings]]) -> int:
    """Hits whose score is not the cosine that their version gives."""
    queries: dict[tuple[int, str], Vector] = {}
    for version, (encoder, _, _) in made.items():
        texts = sorted({hit.query for hit in hits if hit.version == version})
        for start in range(0, len(texts), 32):
            part = texts[start : start + 32]
            queries |= zip(((version, text) for text in part), encoder.encode(part, "query"), strict=True)
    return sum(abs(float(hit.vector @ queries[hit.version, hit.query]) - hit.score) > TOLERANCE for hit in hits)


def compare(
    verdict: Verdict, machine: Machine, state: Mapping[str, dict[str, Any] | None], models: Sequence[str]
) -> None:
    """Documents and spaces against what was acknowledged."""
    expected = {one: document for one, document in state.items() if document is not None}
    with psycopg.connect(machine.url) as connection:
        stored = {
            one: (title, text, revision)
            for one, title, text, revision in connection.execute(
                "SELECT document_id, title, text, content_revision FROM documents WHERE deleted_at IS NULL"
            )
        }
        verdict.note("documents lost", len(expected.keys() - stored.keys()))
        verdict.note("documents that should be gone", len(stored.keys() - expected.keys()))
        differing = [one for one in expected.keys() & stored.keys() if stored[one][1] != expected[one]["text"]]
        verdict.note("documents with another text", len(differing))
        verdict.note("jobs left", connection.execute("SELECT count(*) FROM jobs").fetchall()[0][0])
        made = encoders(connection, models)
        tables = connection.execute(r"SELECT tablename FROM pg_tables WHERE tablename ~ '^vectors_\d+_\d+$'").fetchall()
        for (table,) in sorted(tables):
            number = int(table.rpartition("_")[2])
            rows = connection.execute(
                f"SELECT document_id, chunk, content_revision, starts, ends, embedding::text FROM {table}"
            ).fetchall()
            ids = {row[0] for row in rows}
            verdict.note(f"version {number}: documents without vectors", len(stored.keys() - ids))
            verdict.note(f"version {number}: vectors without documents", len(ids - stored.keys()))
            stale = {one for one, _, revision, *_ in rows if one in stored and stored[one][2] != revision}
            verdict.note(f"version {number}: stale documents", len(stale))
            verdict.note(f"version {number}: foreign vectors", foreign(rows, stored, *made[number]))


def foreign(
    rows: Sequence[Any],
    stored: Mapping[str, tuple[str, str, int]],
    encoder: Encoder,
    _: EmbedderSpec,
    chunking: ChunkingSettings,
) -> int:
    """Stored vectors that the version's own encoder does not give for their text; tried on some hundred documents."""
    chosen = random.Random(7).sample(sorted({row[0] for row in rows} & stored.keys()), min(200, len(stored)))
    vectors = {(row[0], row[1]): np.array(json.loads(row[5]), np.float32) for row in rows}
    moment = datetime.now(UTC)
    bad = 0
    for one in chosen:
        title, text, revision = stored[one]
        document = StoredDocument(
            id=DocumentId(one),
            title=title,
            text=text,
            metadata={},
            revision=revision,
            content_revision=revision,
            created_at=moment,
            updated_at=moment,
        )
        (chunks,) = chunk_documents(encoder, [document], chunking)
        fresh = encoder.encode([chunk.text for chunk in chunks], "document")
        for chunk, vector in zip(chunks, fresh, strict=True):
            kept = vectors.get((one, chunk.number))
            bad += kept is None or float(kept @ vector) / float(np.linalg.norm(kept)) < 0.998
    return bad


class Operator:
    """Registers, promotes, rolls back and retires, as often as it takes, and repeats what a kill interrupted."""

    def __init__(self, machine: Machine, target: Mapping[str, Any]) -> None:
        self._http = machine.client()
        self._target = target
        self.seconds: dict[str, float] = {}
        self.started = time.monotonic()

    def version(self, number: int) -> Any:
        return insist(self._http, "GET", f"{PATH}/versions/{number}")

    def versions(self) -> Any:
        return insist(self._http, "GET", f"{PATH}/versions")

    def register(self) -> int:
        try:
            registered: int = insist(self._http, "POST", f"{PATH}/versions", json=self._target)["number"]
            return registered
        except RuntimeError:  # an earlier try was taken although the answer was lost
            return int(max(one["number"] for one in self.versions()["versions"] if one["state"] != "retired"))

    def wait_ready(self, number: int, show: bool = True) -> Any:
        """Until it is ready; what it says on the way goes to the terminal."""
        state, since = "", time.monotonic()
        shown = 0.0
        while True:
            version = self.version(number)
            if version["state"] != state:
                if state:
                    self.seconds[state] = self.seconds.get(state, 0.0) + time.monotonic() - since
                state, since = version["state"], time.monotonic()
            if show and time.monotonic() - shown > 15:
                progress = version["progress"]
                print(
                    f"  {state} {progress['done']:,} of {progress['total']:,}, {progress['eta_seconds']} s left",
                    flush=True,
                )
                shown = time.monotonic()
            if state == "ready":
                return version
            if state == "failed":
                insist(self._http, "POST", f"{PATH}/versions/{number}/resume")
            if time.monotonic() - self.started > 4 * CALM_SECONDS:
                raise RuntimeError(f"version {number} is still {state}: {version}")
            time.sleep(0.2)

    def active(self) -> int:
        return int(insist(self._http, "GET", PATH)["active_version"])

    def promote(self, number: int) -> None:
        """Forced: whether the other embedder is better is not what is tried here."""
        while self.active() != number:
            with suppress(RuntimeError):
                insist(self._http, "POST", f"{PATH}/versions/{number}/promote", json={"force": True})

    def roll_back(self, leaving: int, to: int) -> None:
        while self.active() != to:
            with suppress(RuntimeError):
                insist(self._http, "POST", f"{PATH}/versions/rollback", json={"from": leaving})

    def retire(self, number: int) -> None:
        insist(self._http, "DELETE", f"{PATH}/versions/{number}")

    def settle(self) -> None:
        def settled() -> bool:
            versions = [one for one in self.versions()["versions"] if one["state"] != "retired"]
            return all(one["progress"]["done"] >= one["progress"]["total"] for one in versions)

        until(settled, seconds=CALM_SECONDS)


def main() -> None:
    arguments = _arguments()
    target = json.loads(arguments.to)
    models = [name for name in arguments.models.split(",") if name]
    judgments = beir.judgments(arguments.folder)
    with (arguments.folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        documents = {one["id"]: one for one in (beir.document(json.loads(line)) for line in lines)}
    documents = dict(itertools.islice(documents.items(), arguments.documents))
    with tempfile.TemporaryDirectory(prefix="azimuth-reindex-") as folder:
        machine = Machine(Path(folder), models)
        with machine.running(), machine.client() as http:
            insist(http, "PUT", PATH, json={})
            for part in _parts(documents):
                insist(http, "POST", f"{PATH}/documents", json={"documents": part})
            operator = Operator(machine, target)
            operator.settle()
            print(f"{len(documents):,} documents loaded", flush=True)
            searcher = Searcher(machine, list(judgments.queries.values()), arguments.seed)
            writer = Writer(machine, documents, arguments.seed)
            killer = Killer(machine, arguments.kills, arguments.seed) if arguments.kills else None
            for client in (searcher, writer, *([killer] if killer else [])):
                client.start()
            time.sleep(5)
            moments: dict[str, float] = {}
            round_ = 0
            while True:
                round_ += 1
                number = operator.register()
                moments[f"registered {number}"] = time.monotonic()
                operator.wait_ready(number, show=killer is None)
                operator.promote(number)
                moments[f"promoted {number}"] = time.monotonic()
                time.sleep(5)
                operator.roll_back(number, 1)
                moments[f"rolled back {number}"] = time.monotonic()
                time.sleep(5)
                if killer is None or killer.enough:
                    break
                operator.retire(number)
            if killer is not None:
                killer.done.set()
                killer.join()
                until(machine.ready)
            searcher.done.set()
            writer.done.set()
            searcher.join()
            writer.join()
            if writer.error is not None:
                raise writer.error
            operator.settle()
            report(machine, operator, searcher, writer, killer, models, round_)


def report(
    machine: Machine,
    operator: Operator,
    searcher: Searcher,
    writer: Writer,
    killer: Killer | None,
    models: Sequence[str],
    rounds: int,
) -> None:
    verdict = Verdict()
    verdict.note("rounds of register, promote, roll back", rounds, bad=False)
    if killer is not None:
        for (state, victim), count in sorted(killer.kills.items()):
            verdict.note(f"killed {victim} while {state}", count, bad=False)
    for version, count in sorted(searcher.versions.items()):
        verdict.note(f"searches answered by version {version}", count, bad=False)
    verdict.note("failed searches", searcher.failures.total(), bad=killer is None)
    verdict.note("answers without hits", searcher.empty)
    for what, count in sorted(writer.writes.items()):
        verdict.note(f"documents {what}", count, bad=False)
    compare(verdict, machine, writer.state, models)
    with psycopg.connect(machine.url) as connection:
        made = encoders(connection, models)
    verdict.note("hits recomputed", len(searcher.hits), bad=False)
    verdict.note("mixed answers (hits)", mixed(searcher.hits, made))
    figures.heading("seconds in each state")
    figures.table(["state", "s"], list(operator.seconds.items()))
    figures.heading("counted")
    figures.table(["what", "n"], verdict.rows)
    if searcher.failures:
        print(f"  {dict(searcher.failures)}")
    sys.exit(1 if verdict.wrong else 0)


def _parts(documents: Mapping[str, dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rest = iter(documents.values())
    while part := list(itertools.islice(rest, 500)):
        yield part


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Change the embedder of a live collection and go back.")
    parser.add_argument("folder", type=Path, help="a collection in BEIR layout")
    parser.add_argument(
        "--to",
        default=json.dumps({"embedder": {"model": "default", "document_prompt": "passage: "}}),
        help="the version to go to, as POST .../versions takes it; default: another prompt, so the same dimensions",
    )
    parser.add_argument("--models", default="", help="comma-separated models that are allowed besides the default")
    parser.add_argument("--kills", type=int, default=0, help="kill so many processes at random moments")
    parser.add_argument("--documents", type=int, default=10**9, help="load no more than so many")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
