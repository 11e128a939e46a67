"""The state machine of versions over fakes: every transition, what is refused and why, when an index is built."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import numpy as np
import pytest

from service.core.collections import ChunkingSettings, Collection, CollectionSettings, EmbedderSpec, IndexSettings
from service.core.documents import Chunk, Document
from service.core.errors import (
    Conflict,
    EmbedderChange,
    Invalid,
    Overloaded,
    PromotionRefused,
    SpaceRefused,
    VersionExists,
    VersionNotFound,
)
from service.core.ids import CollectionId, CollectionName, DocumentId, Role, Vectors, VersionNumber
from service.core.jobs import EncodedDocument, QueueStatus
from service.core.versions import (
    ApiProcess,
    BackfillStatus,
    EmbedderVersion,
    Judgments,
    PromotionCheck,
    SpaceStatus,
    VersionState,
)
from service.embedder.models.hashing_encoder import HashingEncoder
from service.embedder.models.registry import ModelRegistry
from service.embedder.models.text_input import TextInput
from service.spaces.model_verification import ModelVerifier
from service.versions.collection_setup import CollectionService
from service.versions.promotion_checks import VALID_FOR, PromotionChecks
from service.versions.state_machine import VersionStateMachine
from tests.fakes import FakeAdapters, FakeQueue, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = CollectionName("books")
OTHER = EmbedderSpec(model="hashing:16")


class Broken(HashingEncoder):
    def forward(self, inputs: Sequence[TextInput], role: Role) -> Vectors:
        return super().forward(inputs, role) * np.float32(np.nan)


class CountingVersions(FakeVersions):
    """Returns a given number of rows, and counts index builds."""

    rows = 0
    built = 0
    effort = 40

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        await super().status(version)
        return SpaceStatus(
            rows=self.rows, indexed=self.built > 0, chunks_per_document=1.0, ef_settings={"all": self.effort}
        )

    async def build_index(self, version: EmbedderVersion) -> bool:
        self.built += 1
        return True


class BusyQueue(FakeQueue):
    waiting = 0

    async def status(self, collection_id: object, version: object, now: datetime) -> QueueStatus:
        return QueueStatus(pending=self.waiting, failed=0, oldest_seconds=0.0)


class Place(FakeAdapters):
    """One process over a store; the test sets the results of its measurements."""

    versions: CountingVersions
    queue: BusyQueue
    at = NOW
    measured: tuple[PromotionCheck, ...] = (PromotionCheck(name="recall", passed=True, detail="0.99"),)
    examined = 0
    calibrated = 40
    """`ef_search` that is chosen before the measurements."""
    allowed: tuple[str, ...] = ()
    """Models beside the hashing ones."""

    def __init__(self) -> None:
        super().__init__()
        self.store.versions = self.versions = CountingVersions(self.collections, self.store)
        self.queue = BusyQueue(self.store)
        self.models: dict[str, HashingEncoder] = {}
        self.machine = self.state_machine()

    def state_machine(self, *, measure: bool = True) -> VersionStateMachine:
        """The state machine of another process over the same store."""
        registry = ModelRegistry(
            default="hashing:32",
            allowed=self.allowed,
            load=lambda spec: self.models.get(spec.model) or HashingEncoder(_hashing(spec)),
        )
        self.verifier = ModelVerifier(collections=self.collections, versions=self.versions, embedders=registry)
        self.setup = CollectionService(collections=self.collections, embedders=registry, verifier=self.verifier)
        checks = PromotionChecks(
            collections=self.collections,
            versions=self.versions,
            backfills=self.backfills,
            test_sets=self.test_sets,
            processes=self.processes,
            verifier=self.verifier,
            measure=self.measure if measure else None,
            prepare=self.prepare,
        )
        return VersionStateMachine(
            versions=self.versions,
            backfills=self.backfills,
            queue=self.queue,
            verifier=self.verifier,
            checks=checks,
            exact_below=100,
        )

    def now(self) -> datetime:
        return self.at

    async def prepare(self, collection: Collection, version: EmbedderVersion) -> None:
        self.versions.effort = self.calibrated

    async def measure(self, collection: Collection, version: EmbedderVersion) -> tuple[PromotionCheck, ...]:
        self.examined += 1
        return self.measured

    async def create(self, documents: int = 3) -> Collection:
        collection = await self.setup.create(NAME, CollectionSettings(), self.at, actor="azimuth")
        await self.write(collection, *(f"doc-{number}" for number in range(documents)))
        await self.encode()
        return collection

    async def create_other(self) -> Collection:
        return await self.setup.create(CollectionName("others"), CollectionSettings(), NOW, actor="ada")

    async def write(self, collection: Collection, *names: str, text: str = "some words") -> None:
        documents = [Document(id=DocumentId(name), text=f"{text} of {name}") for name in names]
        await self.documents.put(collection.id, documents, self.at)

    async def encode(self) -> None:
        """Work as a worker: encode all waiting jobs of every version."""
        for version in await self.versions.written():
            await self.encode_of(version)

    async def advance(self, machine: VersionStateMachine | None = None) -> None:
        await (machine or self.machine).advance_all(self.now)

    async def encode_and_advance(self, machine: VersionStateMachine | None = None) -> None:
        await self.encode()
        await self.advance(machine)

    async def complete(self, version: EmbedderVersion) -> EmbedderVersion:
        """Advance it until it can be promoted."""
        await self.advance()
        await self.encode_and_advance()
        return await self.state(version, VersionState.READY)

    async def maintain(self) -> None:
        await self.machine.maintain_complete(self.now)

    async def encode_of(self, version: EmbedderVersion) -> None:
        encoder = HashingEncoder(_hashing(version.spec))
        for lane in ("live", "backfill"):
            for claimed in await self.queue.claim([version], 1000, "w", self.at, timedelta(minutes=1), lane):
                text = claimed.document.text
                chunk = Chunk(number=0, start=0, end=len(text), text=text, tokens=1)
                row = EncodedDocument(job=claimed.job, chunks=(chunk,), vectors=encoder.encode([text], "document"))
                assert await self.vectors.write(version, [row])

    async def register(self, collection: Collection, spec: EmbedderSpec = OTHER) -> EmbedderVersion:
        return await self.machine.register(
            collection, embedder=spec, chunking=None, index=IndexSettings(), actor="eve", now=self.at
        )

    async def ready(self, collection: Collection, spec: EmbedderSpec = OTHER) -> EmbedderVersion:
        """A version that can be promoted."""
        return await self.complete(await self.register(collection, spec))

    async def state(self, version: EmbedderVersion, expected: VersionState) -> EmbedderVersion:
        found = await self.versions.get(version.collection_id, version.number)
        assert found.state is expected, found.reason
        return found

    async def promote(self, collection: Collection, number: int, *, force: bool = False) -> Collection:
        return await self.machine.promote(collection, VersionNumber(number), force=force, actor="eve", now=self.now)

    async def actions(self, collection: Collection) -> list[str]:
        entries = await self.audit.page(collection.id, None, 100)
        return [entry.action for entry in reversed(entries)]


def _hashing(spec: EmbedderSpec) -> EmbedderSpec:
    """Models of any name are hashing ones."""
    return spec if spec.model.startswith("hashing") else replace(spec, model="hashing:24")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("service.versions.promotion_checks.SETTLE_SECONDS", 0.2)
    return Place()


@pytest.fixture
async def collection(place: Place) -> Collection:
    """Of three documents."""
    return await place.create()


@pytest.fixture
async def version(place: Place, collection: Collection) -> EmbedderVersion:
    """A second version, just registered."""
    return await place.register(collection)


async def test_a_new_collection_has_one_version_with_identity_and_canary(place: Place) -> None:
    collection = await place.create(0)
    assert collection.settings.embedder.model == "hashing:32", "default is resolved once, so it stays what it was"
    (version,) = await place.versions.of(collection.id)
    assert (version.fingerprint, version.dimensions) == (version.identity.fingerprint, 32)
    assert version.canary
    with pytest.raises(Conflict):
        await place.create(0)


async def test_settings_change_in_place_but_not_the_embedder_or_chunking(place: Place, collection: Collection) -> None:
    settings = replace(collection.settings, recall_target=0.99)
    changed = await place.setup.configure(collection, settings, NOW, actor="ada")
    assert changed.settings.recall_target == 0.99
    for settings, error, message in (
        (replace(changed.settings, embedder=OTHER), EmbedderChange, "new version"),
        (replace(changed.settings, chunking=ChunkingSettings(max_tokens=64)), EmbedderChange, "chunking"),
        (replace(changed.settings, embedder=EmbedderSpec(model="unheard/of")), Invalid, "unheard/of"),
    ):
        with pytest.raises(error, match=message):
            await place.setup.configure(changed, settings, NOW, actor="ada")


async def test_settings_change_although_the_model_is_no_longer_allowed(place: Place, collection: Collection) -> None:
    settings = replace(collection.settings, embedder=EmbedderSpec(model="once/allowed"))
    place.collections.rows[collection.id] = collection = replace(collection, settings=settings)
    changed = await place.setup.configure(collection, replace(settings, language="de"), NOW, actor="ada")
    assert changed.settings.language == "de"


async def test_no_collection_for_a_model_without_usable_vectors(place: Place) -> None:
    place.models["hashing:32"] = Broken(EmbedderSpec(model="hashing:32"))
    with pytest.raises(Invalid, match="unusable"):
        await place.create(0)
    assert await place.collections.all() == ()


async def test_a_version_becomes_ready(place: Place, collection: Collection, version: EmbedderVersion) -> None:
    assert (version.number, version.state) == (2, VersionState.BACKFILLING)
    await place.advance()
    await place.state(version, VersionState.BACKFILLING)
    await place.encode_and_advance()
    ready = await place.state(version, VersionState.READY)
    assert ready.evidence is not None
    checks = {check.name: check.passed for check in ready.evidence.checks}
    assert checks == {"complete": True, "canary": True, "warm": True, "recall": True}
    assert await place.actions(collection) == ["created", "registered", "indexing", "verifying", "ready"]


async def test_an_equal_version_is_not_registered_twice(place: Place, collection: Collection) -> None:
    with pytest.raises(Conflict, match="version 1"):
        await place.register(collection, EmbedderSpec())
    version = await place.register(collection)
    with pytest.raises(Conflict, match="version 2"):
        await place.register(collection)
    await place.machine.retire(collection, version.number, actor="eve", now=NOW)
    assert (await place.register(collection)).number == 3, "numbers are never used again"


async def test_of_two_equal_concurrent_registrations_one_succeeds(place: Place, collection: Collection) -> None:
    versions_of = place.versions.of
    both_looked = asyncio.Barrier(2)

    async def together(collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        found = await versions_of(collection_id)
        if len(found) == 1:
            await both_looked.wait()
        return found

    place.versions.of = together  # type: ignore[method-assign]
    same = await asyncio.gather(place.register(collection), place.register(collection), return_exceptions=True)
    (refused,) = [one for one in same if isinstance(one, Exception)]
    assert isinstance(refused, VersionExists)
    assert refused.errors[0].message == "2"
    assert [one.number for one in await versions_of(collection.id)] == [1, 2]


async def test_live_writes_reach_both_versions(place: Place, collection: Collection, version: EmbedderVersion) -> None:
    await place.advance()
    await place.write(collection, "doc-1", "new", text="other words")
    await place.documents.delete(collection.id, [DocumentId("doc-2")], NOW)
    await place.encode_and_advance()
    await place.state(version, VersionState.READY)
    for one in await place.versions.of(collection.id):
        revisions = {key[0]: row.content_revision for key, row in place.store.space(one).items()}
        assert revisions == {"doc-0": 1, "doc-1": 2, "new": 1}


async def test_only_a_process_that_can_search_verifies(place: Place, version: EmbedderVersion) -> None:
    worker = place.state_machine(measure=False)
    await place.advance(worker)
    await place.encode_and_advance(worker)
    await place.state(version, VersionState.VERIFYING)
    assert place.examined == 0
    await place.advance()
    await place.state(version, VersionState.READY)


async def test_only_one_process_advances_a_version(place: Place, version: EmbedderVersion) -> None:
    async with place.versions.transition_lock(version) as ours:
        assert ours
        await place.advance()
        assert not place.store.jobs, "the holder of the lock fills the queue"
    await place.advance()
    assert place.store.jobs


async def test_a_missing_vector_is_found_and_encoded_again(place: Place, version: EmbedderVersion) -> None:
    await place.advance()
    await place.encode()
    del place.store.space(version)[DocumentId("doc-1"), 0]
    place.store.jobs.clear()
    await place.advance()
    await place.state(version, VersionState.BACKFILLING)
    await place.complete(version)


@pytest.mark.parametrize(
    ("rows", "waiting", "built"),
    [(100, 0, 0), (101, 0, 1), (1000, 101, 0), (1000, 100, 1), (2001, 9999, 1)],
    ids=["small", "outgrown", "in the middle of a load", "load nearly done", "too large to wait"],
)
async def test_when_an_active_version_gets_an_index(place: Place, rows: int, waiting: int, built: int) -> None:
    await place.create(0)
    place.versions.rows, place.queue.waiting = rows, waiting
    await place.maintain()
    await place.maintain()
    assert place.versions.built == built


async def test_the_index_of_a_new_version_is_built_after_the_load(place: Place, version: EmbedderVersion) -> None:
    place.versions.rows = 101
    await place.advance()
    assert place.versions.built == 0
    await place.encode_and_advance()
    await place.state(version, VersionState.READY)
    assert place.versions.built == 1


async def test_a_deleted_version_does_not_stop_index_builds_of_others(place: Place) -> None:
    first = await place.create(0)
    await place.create_other()
    place.versions.rows = 1000
    status = place.versions.status

    async def gone(version: EmbedderVersion) -> SpaceStatus:
        if version.collection_id == first.id:
            raise VersionNotFound
        return await status(version)

    place.versions.status = gone  # type: ignore[method-assign]
    await place.maintain()
    assert place.versions.built == 1


async def test_a_swapped_model_fails_a_version(place: Place, collection: Collection, version: EmbedderVersion) -> None:
    place.models[OTHER.model] = HashingEncoder(EmbedderSpec(model="hashing:64"))
    place.machine = place.state_machine()
    await place.advance()
    failed = await place.state(version, VersionState.FAILED)
    assert "dimensions" in (failed.reason or "")
    assert not place.store.jobs, "a failed version has no jobs"
    await place.write(collection, "doc-1", "meanwhile", text="other words")
    await place.encode()

    place.models.clear()
    place.machine = place.state_machine()
    await place.machine.resume(collection, version.number, actor="eve", now=NOW)
    await place.complete(version)
    assert {key[0] for key in place.store.space(version)} == {"doc-0", "doc-1", "doc-2", "meanwhile"}
    assert (await place.actions(collection))[1:4] == ["registered", "failed", "resumed"]


async def test_a_process_without_the_model_leaves_the_version_to_others(place: Place) -> None:
    place.allowed = ("shop/model",)
    place.machine = place.state_machine()
    collection = await place.create()
    version = await place.register(collection, EmbedderSpec(model="shop/model"))
    place.allowed = ()
    other = place.state_machine()
    await place.advance(other)
    await place.state(version, VersionState.BACKFILLING)
    await place.encode()
    await place.advance(other)
    await place.state(version, VersionState.VERIFYING)
    await place.advance()
    await place.state(version, VersionState.READY)


async def test_a_backfill_is_paused_and_resumed(place: Place, collection: Collection, version: EmbedderVersion) -> None:
    assert (await place.machine.pause(collection, version.number, actor="eve", now=NOW)).paused
    await place.advance()
    assert not place.store.jobs
    await place.write(collection, "new")
    assert len(place.store.jobs) == 2, "live writes still go to both"
    await place.machine.resume(collection, version.number, actor="eve", now=NOW)
    await place.complete(version)
    for change, message in ((place.machine.pause, "ready"), (place.machine.resume, "nothing to resume")):
        with pytest.raises(Conflict, match=message):
            await change(collection, version.number, actor="eve", now=NOW)


async def test_all_but_active_can_be_retired(place: Place, collection: Collection, version: EmbedderVersion) -> None:
    await place.advance()
    retired = await place.machine.retire(collection, version.number, actor="eve", now=NOW)
    assert retired.state is VersionState.RETIRED
    assert not place.store.jobs
    assert await place.machine.retire(collection, version.number, actor="eve", now=NOW) == retired
    for number, error, message in ((1, Conflict, "active"), (9, VersionNotFound, "embedder version")):
        with pytest.raises(error, match=message):
            await place.machine.retire(collection, VersionNumber(number), actor="eve", now=NOW)


async def test_promote_and_roll_back(place: Place, collection: Collection) -> None:
    await place.ready(collection)
    promoted = await place.promote(collection, 2)
    assert (promoted.active_version, promoted.previous_version) == (2, 1)
    assert promoted.settings.embedder == OTHER, "new settings are compared with the embedder that answers"
    await place.state((await place.versions.of(collection.id))[0], VersionState.READY)
    assert await place.promote(promoted, 2) == promoted, "a repeated request changes nothing"

    await place.write(promoted, "since")
    await place.encode()
    back = await place.machine.roll_back(promoted, actor="eve", now=NOW)
    assert (back.active_version, back.previous_version) == (1, 2)
    first = (await place.versions.of(collection.id))[0]
    assert (DocumentId("since"), 0) in place.store.space(first), "what was written since is there"
    assert (await place.actions(collection))[-2:] == ["promoted", "rolled_back"]


async def test_a_refused_promotion_names_all_failed_checks(place: Place, collection: Collection) -> None:
    place.measured = (
        PromotionCheck(name="recall", passed=False, detail="0.80 of 0.95"),
        PromotionCheck(name="judgments", passed=False, detail="worse beyond the noise"),
        PromotionCheck(name="shadow", passed=None, detail="no searches"),
    )
    place.store.space(await place.ready(collection)).clear()
    with pytest.raises(PromotionRefused) as refusal:
        await place.promote(collection, 2)
    assert [error.field for error in refusal.value.errors] == ["complete", "recall", "judgments"]
    assert (await place.collections.by_name(NAME)).active_version == 1

    assert (await place.promote(collection, 2, force=True)).active_version == 2
    (entry, *_) = await place.audit.page(collection.id, None, 1)
    assert (entry.action, entry.actor, entry.version, entry.before) == ("promoted", "eve", 2, 1)
    assert entry.details["forced"] is True
    assert {check["name"]: check["passed"] for check in entry.details["checks"]}["recall"] is False


async def test_only_a_ready_version_is_promoted(place: Place, collection: Collection) -> None:
    await place.register(collection)
    for force in (False, True):
        with pytest.raises(Conflict, match="backfilling"):
            await place.promote(collection, 2, force=force)
    with pytest.raises(Conflict, match="no version to go back to"):
        await place.machine.roll_back(collection, actor="eve", now=NOW)


async def test_evidence_is_renewed_when_old_or_after_new_judgments(place: Place, collection: Collection) -> None:
    await place.ready(collection)
    assert place.examined == 1
    await place.maintain()
    assert place.examined == 1
    judgments = Judgments(queries={"q": "words"}, grades={"q": {"doc-0": 1}}, uploaded_at=NOW)
    (entry,) = await place.audit.page(collection.id, None, 1)
    await place.test_sets.put(collection.id, judgments, entry)
    await place.maintain()
    assert place.examined == 2
    place.at += VALID_FOR + timedelta(seconds=1)
    await place.promote(collection, 2)
    assert place.examined == 3


async def test_a_version_with_another_model_cannot_become_active(place: Place, collection: Collection) -> None:
    await place.ready(collection)
    promoted = await place.promote(collection, 2)
    place.models["hashing:32"] = HashingEncoder(EmbedderSpec(model="hashing:64"))
    place.machine = place.state_machine()
    with pytest.raises(SpaceRefused, match="dimensions"):
        await place.machine.roll_back(promoted, actor="eve", now=NOW)
    with pytest.raises(PromotionRefused) as refusal:
        await place.promote(promoted, 1)
    assert [error.field for error in refusal.value.errors] == ["canary"]


async def test_a_promotion_waits_for_the_encoder_of_every_api_process(place: Place, collection: Collection) -> None:
    await place.ready(collection)
    first, both = (frozenset((collection.id, VersionNumber(one)) for one in numbers) for numbers in ((1,), (1, 2)))
    other = ApiProcess(id="other", host="b", seen_at=NOW, proven=first)
    await place.processes.record_heartbeat(other)
    await place.processes.record_heartbeat(replace(other, id="dead", host="c", seen_at=NOW - timedelta(minutes=1)))
    with pytest.raises(PromotionRefused) as refusal:
        await place.promote(collection, 2)
    assert [(error.field, "1 of 1" in error.message) for error in refusal.value.errors] == [("warm", True)]
    await place.processes.record_heartbeat(replace(other, proven=both))
    assert (await place.promote(collection, 2)).active_version == 2


async def test_of_two_concurrent_promotions_one_succeeds(place: Place, collection: Collection) -> None:
    await place.ready(collection)
    await place.ready(collection, EmbedderSpec(model="hashing:8"))
    promoted = await place.promote(collection, 2)
    examined = place.examined
    with pytest.raises(Conflict):
        await place.promote(collection, 3)  # in `collection` version 1 is still active
    assert (await place.collections.by_name(NAME)).active_version == 2
    await place.promote(promoted, 3)
    assert place.examined == examined + 1, "its evidence compared it with version 1, but it would replace version 2"


async def test_the_previous_version_is_not_promoted_by_old_evidence(place: Place, collection: Collection) -> None:
    await place.ready(collection)
    promoted = await place.machine.roll_back(await place.promote(collection, 2), actor="eve", now=NOW)
    place.at += VALID_FOR + timedelta(seconds=1)
    place.measured = (PromotionCheck(name="recall", passed=False, detail="0.80 of 0.95"),)
    await place.maintain()
    with pytest.raises(PromotionRefused, match=r"0\.80"):
        await place.promote(promoted, 2)


async def test_a_version_is_measured_again_with_a_new_ef_search_or_index(place: Place, collection: Collection) -> None:
    place.calibrated = 80  # before it is measured for the first time, so that counts
    await place.ready(collection)
    examined = place.examined
    await place.maintain()
    assert place.examined == examined
    place.versions.effort = place.calibrated = 100
    await place.maintain()
    assert place.examined == examined + 1
    place.versions.rows = 101
    await place.state_machine(measure=False).maintain_complete(place.now)
    assert place.versions.built > 0
    await place.promote(collection, 2)
    assert place.examined == examined + 2


async def test_an_index_build_of_another_process_is_waited_for(place: Place, version: EmbedderVersion) -> None:
    """The build of a killed process continues in the server."""
    await place.advance()
    await place.encode()
    place.versions.rows = 101
    with mock.patch.object(place.versions, "build_index", return_value=False):
        await place.advance()
    await place.state(version, VersionState.INDEXING)
    await place.advance()
    await place.state(version, VersionState.READY)


@pytest.mark.parametrize("error", [Overloaded("busy"), Invalid("odd"), RuntimeError("odd")], ids=lambda one: repr(one))
async def test_an_error_of_one_version_does_not_stop_others(place: Place, error: Exception) -> None:
    first = await place.create()
    stuck = await place.register(first)
    version = await place.register(await place.create_other())
    advance = place.backfills.advance

    async def troubled(version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        if version.collection_id == first.id:
            raise error
        return await advance(version, now, window)

    place.backfills.advance = troubled  # type: ignore[method-assign]
    await place.advance()
    await place.state(stuck, VersionState.BACKFILLING)
    await place.state(version, VersionState.READY)


async def test_an_index_build_does_not_stop_other_backfills(place: Place) -> None:
    first, second = await place.create(), await place.create_other()
    slow, quick = await place.register(first), await place.register(second)
    backfilling, indexing = (frozenset({state}) for state in (VersionState.BACKFILLING, VersionState.INDEXING))
    await place.machine.advance_all(place.now, backfilling)
    await place.state(quick, VersionState.INDEXING)
    await place.encode()
    place.versions.rows = 101
    build, begun, go_on = place.versions.build_index, asyncio.Event(), asyncio.Event()

    async def slowly(version: EmbedderVersion) -> bool:
        begun.set()
        await go_on.wait()
        return await build(version)

    place.versions.build_index = slowly  # type: ignore[method-assign]
    building = asyncio.create_task(place.machine.advance_all(place.now, indexing))
    await begun.wait()
    await place.machine.advance_all(place.now, backfilling)
    await place.state(slow, VersionState.INDEXING)
    go_on.set()
    await building
    await place.advance()
    for version in (slow, quick):
        await place.state(version, VersionState.READY)


async def test_idle_versions_are_not_locked(place: Place, collection: Collection, version: EmbedderVersion) -> None:
    """Every process asks each second, and a lock takes a connection."""
    await place.machine.pause(collection, version.number, actor="eve", now=NOW)
    lock = mock.Mock(wraps=place.versions.transition_lock)
    place.versions.transition_lock = lock  # type: ignore[method-assign]
    await place.advance()
    lock.assert_not_called()
    await place.machine.resume(collection, version.number, actor="eve", now=NOW)
    worker = place.state_machine(measure=False)
    await place.advance(worker)
    await place.encode_and_advance(worker)
    await place.state(version, VersionState.VERIFYING)
    before = lock.call_count
    await place.advance(worker)
    assert lock.call_count == before > 0


async def test_a_version_far_behind_is_not_complete(place: Place, collection: Collection) -> None:
    version = await place.ready(collection)
    await place.write(collection, *(f"new-{number}" for number in range(20)))
    (first, *_) = await place.versions.of(collection.id)
    await place.encode_of(first)
    with pytest.raises(PromotionRefused, match="20 are encoded in the active version and not here yet"):
        await place.promote(collection, version.number)
    await place.encode()
    await place.write(collection, "one-more")
    await place.encode_of(first)
    assert (await place.promote(collection, version.number)).active_version == 2, "what flows by is no reason"
