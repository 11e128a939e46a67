"""Whatever clients and workers do, in whatever order: nothing acknowledged is lost or doubled.

A state machine writes, deletes, claims, lets leases run out, stores late, gives back and charges, on documents, queue
and vectors at once; it knows what was acknowledged. In the end the queue is drained, and each living document must
have exactly the vectors of its last content.
"""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.core.ids import DocumentId
from service.core.jobs import ClaimedJob, EncodedDocument
from service.core.vector_math import cosine
from service.store.postgres.connection.pool import Pool, open_pool
from tests.world import LEASE, NOW, World, build, doc, encoded, telling

T = TypeVar("T")

NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.text("xyz", min_size=1, max_size=7)
SOME = st.sets(NAMES, min_size=1)
SLOW = [HealthCheck.too_slow]


def pieces(text: str) -> list[str]:
    """How a document is cut here: three code points a chunk."""
    return [text[at : at + 3] for at in range(0, len(text), 3)]


class Machine(RuleBasedStateMachine):
    runner: asyncio.Runner
    pool: Pool | None = None

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.living: dict[str, tuple[str, int]] = {}
        """Name -> text and metadata as last acknowledged."""
        self.revisions: dict[str, int] = {}
        self.texts: dict[tuple[str, int], str] = {}
        """(name, content revision) -> the text that it was."""
        self.taken: list[ClaimedJob] = []
        """Everything that any worker ever claimed and may still try to store."""

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.world: World = self.wait(build(self.pool))

    @rule(names=SOME, text=TEXTS, number=st.integers(0, 1))
    def put(self, names: set[str], text: str, number: int) -> None:
        accepted = self.wait(self.world.put(*(doc(name, text, n=number) for name in names), now=self.now))
        assert [one.id for one in accepted] == list(names)
        for one in accepted:
            before = self.living.get(one.id)
            known = self.revisions.get(one.id, 0)
            if before == (text, number):
                assert (one.status, one.revision) == ("unchanged", known)
                continue
            assert (one.status, one.revision) == ("updated" if before else "created", known + 1)
            self.revisions[one.id] = one.revision
            self.living[one.id] = (text, number)
            if before is None or before[0] != text:
                self.texts[one.id, one.revision] = text

    @precondition(lambda self: self.living)
    @rule(names=SOME)
    def delete(self, names: set[str]) -> None:
        gone = self.wait(self.world.delete(*names, now=self.now))
        assert set(gone) == names & set(self.living)
        for name in gone:
            del self.living[name]
            self.revisions[name] += 1

    @precondition(lambda self: self.living)
    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        claimed = self.wait(self.world.claim(limit=limit, now=self.now))
        for one in claimed:
            assert one.document.text == self.texts[one.job.document_id, one.job.content_revision]
            assert one.document.text == self.living[one.job.document_id][0]
        self.taken += claimed

    @precondition(lambda self: self.living)
    @rule()
    def work(self) -> None:
        """A healthy worker: what it claims it stores."""
        before = len(self.taken)
        self.claim(limit=4)
        claimed = self.taken[before:]
        stored = self.wait(self.world.store(*map(self.encode, claimed)))
        assert stored == {one.job.document_id for one in claimed}

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        """A worker finishes something that it once claimed, be it long lost."""
        chosen = self.choose(data)
        stored = self.wait(self.world.store(*(self.encode(one) for one in chosen)))
        for one in chosen:
            if one.job.document_id in stored:
                assert self.living[one.job.document_id][0] == one.document.text

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), how=st.sampled_from(["release", "extend", "charge", "charge for good", "retry"]))
    def trouble(self, data: st.DataObject, how: str) -> None:
        """A worker gives back, goes on, fails; an operator tries again."""
        jobs = [one.job for one in self.choose(data)]
        queue = self.world.queue
        match how:
            case "release":
                self.wait(queue.release(jobs, self.now))
            case "extend":
                self.wait(queue.extend(jobs, self.now + LEASE))
            case "retry":
                self.wait(queue.retry(self.world.collection.id, self.now))
            case _:
                attempts = 1 if how == "charge for good" else 3
                self.wait(queue.record_failure(jobs, "trouble", attempts, self.now, self.now + LEASE))

    @rule(seconds=st.sampled_from([1, 61, 200]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def choose(self, data: st.DataObject) -> list[ClaimedJob]:
        """Some of what was ever taken, each document once, in any order."""
        drawn = data.draw(st.lists(st.sampled_from(range(len(self.taken))), min_size=1, max_size=4, unique=True))
        return list({self.taken[at].job.document_id: self.taken[at] for at in drawn}.values())

    def encode(self, one: ClaimedJob) -> EncodedDocument:
        return encoded(one, pieces=pieces(one.document.text))

    @invariant()
    def whatever_is_stored_was_once_the_content(self) -> None:
        """No torn documents: all chunks of one revision, and of no other."""
        if not hasattr(self, "world"):
            return
        stored = self.wait(self.world.stored_chunks())
        assert {name for name, _ in stored} <= set(self.living)
        for name in {name for name, _ in stored}:
            (revision,) = {revision for (owner, _), revision in stored.items() if owner == name}
            chunks = sorted(chunk for owner, chunk in stored if owner == name)
            assert chunks == list(range(len(pieces(self.texts[name, revision]))))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.now += 10 * LEASE
        self.wait(self.world.queue.retry(self.world.collection.id, self.now))
        while claimed := self.wait(self.world.claim(now=self.now)):
            stored = self.wait(self.world.store(*map(self.encode, claimed)))
            assert stored == {one.job.document_id for one in claimed}

        cut = {name: pieces(text) for name, (text, _) in self.living.items()}
        expected = {(name, number): piece for name, parts in cut.items() for number, piece in enumerate(parts)}
        assert set(self.wait(self.world.stored_chunks())) == set(expected)
        asked = [(DocumentId(name), number) for name, number in expected]
        vectors = self.wait(self.world.vectors.get(self.world.version, asked))
        for name, number in asked:
            assert cosine(vectors[name, number], telling(expected[name, number])) > 0.9999
        status = self.wait(self.world.queue.status(self.world.collection.id, self.world.version.number, self.now))
        assert (status.pending, status.failed) == (0, 0)


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_in_memory() -> None:
    with asyncio.Runner() as runner:
        machine = type("InMemory", (Machine,), {"runner": runner})
        run_state_machine_as_test(machine, settings=settings(max_examples=250, stateful_step_count=30, deadline=None))


@pytest.mark.database
def test_nothing_is_lost_or_doubled_in_postgres(database_url: str) -> None:
    with asyncio.Runner() as runner:
        pool = runner.run(open_pool(database_url, size=2, statement_timeout_seconds=15, application_name="machine"))
        try:
            machine = type("InPostgres", (Machine,), {"runner": runner, "pool": pool})
            how = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=SLOW)
            run_state_machine_as_test(machine, settings=how)
        finally:
            runner.run(pool.close())
