"""A new embedder for a collection that is written and searched without pause, while its processes are killed.

Short states are held open by locks in the database, so that each kill hits its state with half of the work done: an
index build waits for a transaction, evidence for an API process that never gets ready, a change for its audit entry.
"""

import json
import random
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from service.core.collections import EmbedderSpec
from service.core.ports.embedder import Encoder
from tests.faults.machine import (
    COLLECTION,
    MODEL,
    Client,
    Machine,
    Writer,
    assert_everything_is_there_once,
    encoder_of,
    running,
    sentence,
    settle,
)
from tests.models import static_model

pytestmark = pytest.mark.faults

DOCUMENTS = 300
VICTIMS = ("worker", "serve", "postgres")
SETTINGS = {"recall_target": 0.5}
"""The index of some hundred near duplicates that are rewritten all the time consists mostly of dead rows and misses
neighbours with any `ef_search`: with a higher target the promotion would rightly be refused."""
SCORE_TOLERANCE = 0.002
"""Half precision in the table, single in the answer."""

TARGETS: dict[int, dict[str, Any]] = {
    # As many dimensions as the first version: only their identities differ.
    2: {"embedder": {"model": MODEL, "query_prompt": "what a reader asks: ", "document_prompt": "page of a book: "}},
    3: {"embedder": {"model": "hashing:32"}, "chunking": {"max_tokens": 24, "overlap_tokens": 4}},
}


LEASED = "SELECT count(*) > 0 FROM jobs WHERE lease IS NOT NULL"


class Searcher(Client):
    """Searches without pause, and recomputes every hit with the encoder of the version that answered."""

    def __init__(self, machine: Machine, seed: int, encoders: Mapping[int, Encoder]) -> None:
        super().__init__()
        self._http = machine.client()
        self._chance = random.Random(seed)
        self._encoders = encoders
        self.answers: Counter[int] = Counter()
        self.hits: Counter[int] = Counter()

    def finish(self) -> None:
        super().finish()
        self._http.close()

    def answered_by(self, number: int) -> None:
        """Wait for some hits of this version."""
        enough = self.hits[number] + 50

        def answered() -> bool:
            self.raise_failure()
            return self.hits[number] >= enough

        Machine.until(answered, f"answered by {number}")

    def step(self) -> None:
        question = {
            "query": sentence(self._chance, 3),
            "mode": self._chance.choice(("dense", "hybrid")),
            "group_by": self._chance.choice(("document", "chunk")),
            "include": ["text", "vector"],
            "explain": True,
        }
        with suppress(httpx.TransportError):  # killed, and not back yet
            answer = self._http.post(f"{COLLECTION}/search", json=question)
            if answer.status_code != 503:  # no database, or no proven model yet
                assert answer.status_code == 200, answer.text
                nearest = question["mode"] == "dense" or question["group_by"] == "chunk"
                self._check(str(question["query"]), answer.json(), nearest=nearest)

    def _check(self, query: str, answer: Mapping[str, Any], *, nearest: bool) -> None:
        """`nearest`: the chunk shown is the one with the cosine of the hit; else that may be another chunk, nearer."""
        number = answer["embedder_version"]
        encoder = self._encoders[number]
        (encoded_query,) = encoder.encode([query], "query")
        self.answers[number] += 1
        for hit in answer["hits"]:
            dense, vector = hit["explain"]["dense"], hit["vector"]
            if dense is None or vector is None:
                continue  # a lexical hit, or one of a document that was rewritten meanwhile
            stored = np.array(vector, dtype=np.float32)
            (fresh,) = encoder.encode([f"{hit['title']}\n{hit['text']}"], "document")
            assert float(fresh @ stored) > 0.999, (number, hit)
            nearer = dense["score"] - float(encoded_query @ stored)
            assert -SCORE_TOLERANCE < nearer < (SCORE_TOLERANCE if nearest else 1.0), (number, hit)
            self.hits[number] += 1


class Operator:
    """Changes the embedder, and repeats every request until it is acknowledged and effective."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.refused = ""
        """Why the latest request was refused, for the message of a failed test."""

    def register(self, target: Mapping[str, Any]) -> int:
        answer = self._machine.send("POST", f"{COLLECTION}/versions", json=target)
        if answer.status_code == 409:  # an earlier request was accepted, and its answer lost
            return int(answer.json()["errors"][0]["message"])
        assert answer.status_code == 202, answer.text
        return int(answer.json()["number"])

    def promote(self, number: int) -> None:
        # 409: the evidence was lost with a killed process, or another process holds the lock.
        self._machine.until(
            lambda: self._accepted("POST", f"versions/{number}/promote"), lambda: f"{number} promoted: {self.refused}"
        )

    def roll_back(self, leaving: int, to: int) -> None:
        # 409: it was done, and its answer lost.
        self._accepted("POST", "versions/rollback", {"from": leaving})
        assert self.active() == to

    def retire(self, number: int) -> None:
        assert self._accepted("DELETE", f"versions/{number}")

    def active(self) -> int:
        return int(self._machine.send("GET", f"{COLLECTION}/versions").json()["active_version"])

    def _accepted(self, method: str, path: str, body: object = None) -> bool:
        answer = self._machine.send(method, f"{COLLECTION}/{path}", json=body)
        assert answer.status_code in {200, 409}, answer.text
        self.refused = "" if answer.is_success else answer.text
        return answer.status_code == 200


class Killer:
    """Kills one process on demand; every kind of process equally often."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine = machine
        self._chance = random.Random(seed)
        self._next: list[str] = []

    def kill_one(self, moment: str) -> None:
        if not self._next:
            self._next = self._chance.sample(VICTIMS, len(VICTIMS))
        victim = self._next.pop()
        self._machine.until(lambda: self._machine.kill(victim), f"{victim} there to be killed while {moment}")
        if victim == "serve":  # else it counts as a process without the new encoder until its heartbeat is old
            self._machine.execute("DELETE FROM processes WHERE host <> 'cold'")

    @contextmanager
    def at(self, moment: str, table: str, mode: str, reached: Callable[[], object]) -> Iterator[None]:
        """Lock `table`, run the block, which starts work that waits for it, and kill one once `reached`."""
        with self._machine.database() as connection:
            connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield
            self._machine.until(reached, moment)
            self.kill_one(moment)


class Reindex:
    """One version from its registration on, with a kill in every state."""

    def __init__(self, machine: Machine, killer: Killer, target: Mapping[str, Any]) -> None:
        self.machine, self.killer, self.operator = machine, killer, Operator(machine)
        self.before = self.operator.active()
        self.number = self.operator.register(target)
        ((collection,),) = machine.select("SELECT id FROM collections")
        self.table = f"vectors_{collection}_{self.number}"

    def state(self) -> str:
        ((state,),) = self.machine.select("SELECT state FROM embedder_versions WHERE number = %s", self.number)
        return str(state)

    def waits_for(self, table: str) -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
        return self.machine.select(waiting, table) != [(0,)]

    def half_built(self) -> bool:
        invalid = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass AND NOT indisvalid"
        return self.machine.select(invalid, self.table) != [(0,)]

    def until(self, state: str) -> None:
        self.machine.until(lambda: self.state() == state, state)

    def fill(self) -> None:
        some = f"SELECT count(*) > {DOCUMENTS // 10} FROM {self.table}"
        self.machine.until(lambda: self.machine.select(some) == [(True,)], "a part of it there")
        self.killer.kill_one("backfilling")
        assert self.state() == "backfilling"
        with self.cold_process():
            # A concurrent index build finishes only after the transactions that began before it.
            with self.killer.at("indexing", self.table, "ROW EXCLUSIVE", self.half_built):
                self.until("indexing")
            self.until("verifying")
            self.killer.kill_one("verifying")
        self.until("ready")
        self.killer.kill_one("ready")

    def promote(self) -> None:
        self.change("promoting", lambda: self.operator.promote(self.number))

    def roll_back(self) -> None:
        self.change("rolling back", lambda: self.operator.roll_back(self.number, self.before))

    def retire(self) -> None:
        self.change("retiring", lambda: self.operator.retire(self.number))
        assert self.machine.select("SELECT to_regclass(%s)", self.table) == [(None,)]

    @contextmanager
    def cold_process(self) -> Iterator[None]:
        """An API process that never loads the new encoder, so that verifying waits for it for some seconds."""
        name = uuid.uuid4()
        self.machine.execute("INSERT INTO processes VALUES (%s, 'cold', now() + interval '1 hour', '{}')", name)
        yield
        self.machine.execute("DELETE FROM processes WHERE id = %s", name)

    def change(self, moment: str, request: Callable[[], None]) -> None:
        """Kill when a change lacks only its audit entry and its commit."""

        def reached() -> bool:
            return (asking.done() and asking.exception() is not None) or self.waits_for("audit")

        with ThreadPoolExecutor(1) as threads:
            try:
                with self.killer.at(moment, "audit", "EXCLUSIVE", reached):
                    asking = threads.submit(request)
            except AssertionError as failure:
                raise AssertionError(f"{failure}: {self.operator.refused}") from failure
            asking.result()


def test_a_reindex_killed_in_every_state_completes(folder: Path) -> None:
    encoders = {1: encoder_of(EmbedderSpec())}
    with running(folder, SETTINGS, EXACT_BELOW="10", BACKFILL_PER_SECOND="100") as machine:
        killer, writer, searcher = Killer(machine, 133), Writer(machine, 7, DOCUMENTS), Searcher(machine, 7, encoders)
        writer.write_all()
        settle(machine)
        writer.start()
        searcher.start()
        with ExitStack() as ends:
            ends.callback(searcher.finish)
            ends.callback(writer.finish)
            for number, target in TARGETS.items():
                encoders[number] = encoder_of(EmbedderSpec(**target["embedder"]))
                reindex = Reindex(machine, killer, target)
                assert reindex.number == number
                reindex.fill()
                reindex.promote()
                searcher.answered_by(number)
                reindex.roll_back()
            reindex.retire()
        settle(machine)
        assert_everything_is_there_once(machine, writer.state)
        machine.until(lambda: indexes(machine) == {"vectors_1_1_hnsw": True, "vectors_1_2_hnsw": True}, "all indexed")

        entries = machine.send("GET", f"{COLLECTION}/audit?limit=100").json()["entries"]
        # `effort` entries are written whenever an index was calibrated.
        told = [entry for entry in reversed(entries) if entry["action"] != "effort"]
        done = [(entry["action"], entry["before"], entry["version"]) for entry in told]
        made = [(action, None) for action in ("registered", "indexing", "verifying", "ready")]
        assert done == [
            ("created", None, 1),
            *((*action, 2) for action in made),
            ("promoted", 1, 2),
            ("rolled_back", 2, 1),
            *((*action, 3) for action in made),
            ("promoted", 1, 3),
            ("rolled_back", 3, 1),
            ("retired", None, 3),
        ]


def indexes(machine: Machine) -> dict[str, bool]:
    """Every HNSW index, and whether it is valid."""
    known = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname ~ 'hnsw'"
    return dict(machine.select(known))


def test_a_stopped_worker_releases_its_backfill_jobs(folder: Path) -> None:
    """The leases are too long to expire within the test."""
    with running(folder, SETTINGS, LEASE_SECONDS="600", BACKFILL_PER_SECOND="100") as machine:
        writer = Writer(machine, 7, DOCUMENTS)
        writer.write_all()
        settle(machine)
        Operator(machine).register(TARGETS[2])
        with machine.database() as connection:
            # Nothing can be stored now, so the worker holds leases when it is told to stop.
            connection.execute("LOCK TABLE vectors_1_2 IN EXCLUSIVE MODE")
            machine.until(lambda: machine.select(LEASED) == [(True,)], "jobs leased")
            (worker,) = machine.processes_of("worker")
            worker.send_signal(signal.SIGTERM)
        psutil.wait_procs([worker], timeout=30)
        assert machine.select("SELECT count(*) FROM jobs") > [(0,)], "the backfill was over before the worker stopped"
        state = "SELECT state FROM embedder_versions WHERE number = 2"
        machine.until(lambda: machine.select(state) == [("ready",)], "ready")
        assert_everything_is_there_once(machine, writer.state)


def test_a_model_swapped_at_runtime_is_refused_until_restored(folder: Path) -> None:
    model = static_model(folder.with_name("model"))
    weights = next(model.rglob("model.safetensors"))
    own, other = weights.read_bytes(), flipped(weights.read_bytes())
    with running(folder, SETTINGS, EMBEDDER=str(model), CHECK_SECONDS="1") as machine:
        writer = Writer(machine, 7, 20)
        writer.write_all()
        settle(machine)
        assert dense(machine).status_code == 200
        # Shows that the worker continues with other models.
        assert machine.send("PUT", "/v1/collections/others", json={"embedder": MODEL}).is_success

        replace(weights, other)
        writer.write_all()  # partly encoded by the old model in memory before the swap is noticed
        machine.until(lambda: dense(machine).status_code == 503, "refused by the api")
        assert "version 1 was made by another embedder" in dense(machine).json()["detail"]
        assert "weights differ" in dense(machine).json()["detail"]
        hybrid = machine.http.post(f"{COLLECTION}/search", json={"query": "round"})
        assert hybrid.status_code == 200
        ((stage, reason),) = [(one["stage"], one["reason"]) for one in hybrid.json()["degraded"]]
        assert (stage, "weights differ" in reason) == ("embed", True)
        machine.until(lambda: refusals(machine), "refused by the worker")
        machine.until(lambda: machine.select(LEASED) == [(False,)], "all leases released")
        unchanged = stored(machine)
        writer.write_all()
        other_document = {"documents": [{"id": "one", "text": "encoded by another model"}]}
        answer = machine.send("POST", "/v1/collections/others/documents?wait=true", json=other_document).json()
        assert answer["searchable"] is True
        assert stored(machine) == unchanged
        assert machine.send("GET", COLLECTION).json()["counts"]["pending"] == 20

        replace(weights, own)
        machine.until(lambda: dense(machine).status_code == 200, "taken back by the api")
        assert machine.send("DELETE", "/v1/collections/others?confirm=others").is_success
        settle(machine)
        assert_everything_is_there_once(machine, writer.state)


def replace(path: Path, content: bytes) -> None:
    """Atomically, as a deployment does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 0x40]) + content[-2:]


def dense(machine: Machine) -> httpx.Response:
    return machine.http.post(f"{COLLECTION}/search", json={"query": "round", "mode": "dense"})


def stored(machine: Machine) -> list[Any]:
    return machine.select("SELECT document_id, chunk, content_revision FROM vectors_1_1 ORDER BY 1, 2")


def refusals(machine: Machine) -> list[str]:
    """The worker's log entries on versions that it does not write to."""
    lines = [json.loads(line) for line in machine.log.splitlines() if line.startswith("{")]
    return [one["reason"] for one in lines if one["message"] == "version skipped" and "weights differ" in one["reason"]]
