"""The version's story over fakes: every move of the state machine, what is refused and why, when an index is built."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

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
from service.core.ports.embedder import Encoder
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
from service.spaces.model_verification import ModelVerifier
from service.versions.collection_setup import CollectionService
from service.versions.promotion_checks import VALID_FOR, PromotionChecks
from service.versions.state_machine import VersionStateMachine
from tests.fakes import FakeDocuments, FakeQueue, FakeStore, FakeVectors
from tests.fakes_backfill import FakeBackfills
from tests.fakes_catalog import FakeAudit, FakeProcesses, FakeTestSets, FakeVersions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = CollectionName("books")
OTHER = EmbedderSpec(model="hashing:16")


class Broken(HashingEncoder):
    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        return super().encode(texts, role) * np.float32(np.nan)


class CountingVersions(FakeVersions):
    """Says that there are so many rows, and counts how often an index was built."""

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


@dataclass
class Place:
    """One process over a store. What was measured is what the test says."""

    store: FakeStore = field(default_factory=FakeStore)
    at: datetime = NOW
    measured: tuple[PromotionCheck, ...] = (PromotionCheck(name="recall", passed=True, detail="0.99"),)
    examined: int = 0
    calibrated: int = 40
    """`ef_search` that a calibration before the measurements sets."""
    allowed: tuple[str, ...] = ()
    """Models, beside the hashing ones."""

    def __post_init__(self) -> None:
        self.versions = CountingVersions(self.store.collections, self.store)
        self.store.versions = self.versions
        self.queue = BusyQueue(self.store)
        self.processes = FakeProcesses()
        self.test_sets = FakeTestSets(self.store.collections)
        self.backfills = FakeBackfills(self.store)
        self.models: dict[str, HashingEncoder] = {}
        self.flow = self.state_machine()

    def state_machine(self, *, measure: bool = True) -> VersionStateMachine:
        """Of another process over the same store."""
        registry = ModelRegistry(
            default="hashing:32",
            allowed=self.allowed,
            load=lambda spec: self.models.get(spec.model) or HashingEncoder(_hashing(spec)),
        )
        self.verifier = ModelVerifier(collections=self.store.collections, versions=self.versions, embedders=registry)
        self.collection_service = CollectionService(
            collections=self.store.collections, embedders=registry, verifier=self.verifier
        )
        checks = PromotionChecks(
            collections=self.store.collections,
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
        collection = await self.collection_service.create(NAME, CollectionSettings(), self.at, actor="azimuth")
        await self.write(collection, *(f"doc-{number}" for number in range(documents)))
        await self.encode()
        return collection

    async def write(self, collection: Collection, *names: str, text: str = "some words") -> None:
        documents = [Document(id=DocumentId(name), text=f"{text} of {name}") for name in names]
        await FakeDocuments(self.store).put(collection.id, documents, self.at)

    async def encode(self) -> None:
        """What workers do: everything that waits, in every version."""
        for version in await self.versions.written():
            await self.encode_of(version)

    async def encode_of(self, version: EmbedderVersion) -> None:
        encoder: Encoder = HashingEncoder(_hashing(version.spec))
        for lane in ("live", "backfill"):
            for claimed in await self.queue.claim([version], 1000, "w", self.at, timedelta(minutes=1), lane):
                text = claimed.document.text
                chunk = Chunk(number=0, start=0, end=len(text), text=text, tokens=1)
                row = EncodedDocument(job=claimed.job, chunks=(chunk,), vectors=encoder.encode([text], "document"))
                assert await FakeVectors(self.store).write(version, [row])

    async def register(self, collection: Collection, spec: EmbedderSpec = OTHER) -> EmbedderVersion:
        return await self.flow.register(
            collection, embedder=spec, chunking=None, index=IndexSettings(), actor="eve", now=self.at
        )

    async def ready(self, collection: Collection, spec: EmbedderSpec = OTHER) -> EmbedderVersion:
        """A version with everything that is needed before a promotion."""
        version = await self.register(collection, spec)
        await self.flow.advance_all(self.now)
        await self.encode()
        await self.flow.advance_all(self.now)
        return await self.state(version, VersionState.READY)

    async def state(self, version: EmbedderVersion, expected: VersionState) -> EmbedderVersion:
        found = await self.versions.get(version.collection_id, version.number)
        assert found.state is expected, found.reason
        return found

    async def promote(self, collection: Collection, number: int, *, force: bool = False) -> Collection:
        return await self.flow.promote(collection, VersionNumber(number), force=force, actor="eve", now=self.now)

    async def actions(self, collection: Collection) -> list[str]:
        entries = await FakeAudit(self.store.collections).page(collection.id, None, 100)
        return [entry.action for entry in reversed(entries)]


def _hashing(spec: EmbedderSpec) -> EmbedderSpec:
    """Whatever a model is called, it is a hashing one."""
    return spec if spec.model.startswith("hashing") else replace(spec, model="hashing:24")


@pytest.fixture
def place() -> Place:
    return Place()


# ---------------------------------------------------------------- create and configure


async def test_a_new_collection_has_one_version_with_identity_and_canary(place: Place) -> None:
    collection = await place.create(0)
    assert collection.settings.embedder.model == "hashing:32", "default is resolved once, so it stays what it was"
    (version,) = await place.versions.of(collection.id)
    assert version.fingerprint == version.identity.fingerprint
    assert version.canary
    assert version.dimensions == 32
    with pytest.raises(Conflict):
        await place.create(0)


async def test_settings_change_in_place_but_not_what_moves_vectors(place: Place) -> None:
    collection = await place.create(0)
    changed = await place.collection_service.configure(
        collection, replace(collection.settings, recall_target=0.99), NOW, actor="ada"
    )
    assert changed.settings.recall_target == 0.99
    for settings, error, message in (
        (replace(changed.settings, embedder=OTHER), EmbedderChange, "new version"),
        (replace(changed.settings, chunking=ChunkingSettings(max_tokens=64)), EmbedderChange, "chunking"),
        (replace(changed.settings, embedder=EmbedderSpec(model="unheard/of")), Invalid, "unheard/of"),
    ):
        with pytest.raises(error, match=message):
            await place.collection_service.configure(changed, settings, NOW, actor="ada")


async def test_a_model_that_is_no_longer_allowed_does_not_keep_other_settings_from_changing(place: Place) -> None:
    collection = await place.create(0)
    settings = replace(collection.settings, embedder=EmbedderSpec(model="once/allowed"))
    place.store.collections.rows[collection.id] = collection = replace(collection, settings=settings)
    changed = await place.collection_service.configure(collection, replace(settings, language="de"), NOW, actor="ada")
    assert changed.settings.language == "de"


async def test_a_model_without_usable_vectors_makes_no_collection(place: Place) -> None:
    place.models["hashing:32"] = Broken(EmbedderSpec(model="hashing:32"))
    with pytest.raises(Invalid, match="unusable"):
        await place.create(0)
    assert await place.store.collections.all() == ()


# ---------------------------------------------------------------- register, backfill, index, verify


async def test_a_version_goes_from_registered_to_ready_by_itself(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    assert (version.number, version.state) == (2, VersionState.BACKFILLING)
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.BACKFILLING)
    await place.encode()
    await place.flow.advance_all(place.now)
    ready = await place.state(version, VersionState.READY)
    assert ready.evidence is not None
    assert {check.name: check.passed for check in ready.evidence.checks} == {
        "complete": True,
        "canary": True,
        "warm": True,
        "recall": True,
    }
    assert await place.actions(collection) == ["created", "registered", "indexing", "verifying", "ready"]


async def test_what_is_left_out_is_as_the_active_version_has_it(place: Place) -> None:
    collection = await place.create(0)
    chunked = await place.flow.register(
        collection,
        embedder=None,
        chunking=ChunkingSettings(max_tokens=64),
        index=IndexSettings(m=8),
        actor="eve",
        now=NOW,
    )
    assert chunked.spec == collection.settings.embedder
    assert (chunked.chunking, chunked.index) == (ChunkingSettings(max_tokens=64), IndexSettings(m=8))


async def test_the_same_version_is_not_registered_twice(place: Place) -> None:
    collection = await place.create()
    with pytest.raises(Conflict, match="version 1"):
        await place.register(collection, EmbedderSpec())
    version = await place.register(collection)
    with pytest.raises(Conflict, match="version 2"):
        await place.register(collection)
    await place.flow.retire(collection, version.number, actor="eve", now=NOW)
    assert (await place.register(collection)).number == 3, "numbers are never used again"


async def test_of_two_operators_who_register_the_same_at_once_one_does(place: Place) -> None:
    collection = await place.create()
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


async def test_writes_and_deletes_while_it_is_filled_reach_both(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    await place.flow.advance_all(place.now)
    await place.write(collection, "doc-1", "new", text="other words")
    await FakeDocuments(place.store).delete(collection.id, [DocumentId("doc-2")], NOW)
    await place.encode()
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)
    for one in await place.versions.of(collection.id):
        revisions = {key[0]: row.content_revision for key, row in place.store.space(one).items()}
        assert revisions == {"doc-0": 1, "doc-1": 2, "new": 1}


async def test_a_process_that_cannot_search_leaves_verifying_to_one_that_can(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    worker = place.state_machine(measure=False)
    await worker.advance_all(place.now)
    await place.encode()
    await worker.advance_all(place.now)
    await place.state(version, VersionState.VERIFYING)
    assert place.examined == 0
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)


async def test_only_one_process_drives_a_version(place: Place) -> None:
    version = await place.register(await place.create())
    async with place.versions.transition_lock(version) as ours:
        assert ours
        await place.flow.advance_all(place.now)
        assert not place.store.jobs, "the other one fills the queue"
    await place.flow.advance_all(place.now)
    assert place.store.jobs


async def test_what_was_missed_is_found_by_comparing_and_filled(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    await place.flow.advance_all(place.now)
    await place.encode()
    del place.store.space(version)[DocumentId("doc-1"), 0]
    place.store.jobs.clear()
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.BACKFILLING)
    await place.flow.advance_all(place.now)
    await place.encode()
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)


@pytest.mark.parametrize(
    ("rows", "waiting", "built"),
    [(100, 0, 0), (101, 0, 1), (1000, 101, 0), (1000, 100, 1), (2001, 9999, 1)],
    ids=["small", "outgrown", "in the middle of a load", "load nearly done", "too large to wait"],
)
async def test_when_an_active_version_gets_an_index(place: Place, rows: int, waiting: int, built: int) -> None:
    await place.create(0)
    place.versions.rows, place.queue.waiting = rows, waiting
    await place.flow.maintain_complete(place.now)
    await place.flow.maintain_complete(place.now)
    assert place.versions.built == built


async def test_the_index_of_a_new_version_is_built_after_the_load(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    place.versions.rows = 101
    await place.flow.advance_all(place.now)
    assert place.versions.built == 0
    await place.encode()
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)
    assert place.versions.built == 1


async def test_a_version_that_goes_meanwhile_does_not_keep_the_others_from_their_index(place: Place) -> None:
    first = await place.create(0)
    await place.collection_service.create(CollectionName("others"), CollectionSettings(), NOW, actor="ada")
    place.versions.rows = 1000
    status = place.versions.status

    async def gone(version: EmbedderVersion) -> SpaceStatus:
        if version.collection_id == first.id:
            raise VersionNotFound
        return await status(version)

    place.versions.status = gone  # type: ignore[method-assign]
    await place.flow.maintain_complete(place.now)
    assert place.versions.built == 1


# ---------------------------------------------------------------- failing, pausing, resuming, retiring


async def test_a_model_that_is_swapped_fails_the_version_and_resuming_loses_nothing(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    place.models[OTHER.model] = HashingEncoder(EmbedderSpec(model="hashing:64"))
    place.flow = place.state_machine()
    await place.flow.advance_all(place.now)
    failed = await place.state(version, VersionState.FAILED)
    assert "dimensions" in (failed.reason or "")
    assert not place.store.jobs, "nobody works for it any more"
    await place.write(collection, "doc-1", "meanwhile", text="other words")
    await place.encode()

    place.models.clear()
    place.flow = place.state_machine()
    await place.flow.resume(collection, version.number, actor="eve", now=NOW)
    await place.flow.advance_all(place.now)
    await place.encode()
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)
    assert {key[0] for key in place.store.space(version)} == {"doc-0", "doc-1", "doc-2", "meanwhile"}
    assert (await place.actions(collection))[1:4] == ["registered", "failed", "resumed"]


async def test_a_process_that_may_not_run_the_model_leaves_the_version_to_others(place: Place) -> None:
    place.allowed = ("shop/model",)
    place.flow = place.state_machine()
    collection = await place.create()
    version = await place.register(collection, EmbedderSpec(model="shop/model"))
    place.allowed = ()
    other = place.state_machine()
    await other.advance_all(place.now)
    await place.state(version, VersionState.BACKFILLING)
    await place.encode()
    await other.advance_all(place.now)
    await place.state(version, VersionState.VERIFYING)
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)


async def test_a_paused_backfill_rests_until_it_is_resumed(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    paused = await place.flow.pause(collection, version.number, actor="eve", now=NOW)
    assert paused.paused
    await place.flow.advance_all(place.now)
    assert not place.store.jobs
    await place.write(collection, "new")
    assert len(place.store.jobs) == 2, "live writes still go to both"
    await place.flow.resume(collection, version.number, actor="eve", now=NOW)
    await place.flow.advance_all(place.now)
    await place.encode()
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)
    with pytest.raises(Conflict, match="ready"):
        await place.flow.pause(collection, version.number, actor="eve", now=NOW)
    with pytest.raises(Conflict, match="nothing to resume"):
        await place.flow.resume(collection, version.number, actor="eve", now=NOW)


async def test_a_version_is_retired_in_any_state_but_active(place: Place) -> None:
    collection = await place.create()
    version = await place.register(collection)
    await place.flow.advance_all(place.now)
    retired = await place.flow.retire(collection, version.number, actor="eve", now=NOW)
    assert retired.state is VersionState.RETIRED
    assert not place.store.jobs
    assert await place.flow.retire(collection, version.number, actor="eve", now=NOW) == retired
    with pytest.raises(Conflict, match="active"):
        await place.flow.retire(collection, VersionNumber(1), actor="eve", now=NOW)
    with pytest.raises(VersionNotFound):
        await place.flow.retire(collection, VersionNumber(9), actor="eve", now=NOW)


# ---------------------------------------------------------------- promote and roll back


async def test_there_and_back_again(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    promoted = await place.promote(collection, 2)
    assert (promoted.active_version, promoted.previous_version) == (2, 1)
    assert promoted.settings.embedder == OTHER, "new settings are compared with the embedder that answers"
    await place.state((await place.versions.of(collection.id))[0], VersionState.READY)
    assert await place.promote(promoted, 2) == promoted, "asked for twice, done once"

    await place.write(promoted, "since")
    await place.encode()
    back = await place.flow.roll_back(promoted, actor="eve", now=NOW)
    assert (back.active_version, back.previous_version) == (1, 2)
    first = (await place.versions.of(collection.id))[0]
    assert (DocumentId("since"), 0) in place.store.space(first), "what was written since is there"
    assert (await place.actions(collection))[-2:] == ["promoted", "rolled_back"]


async def test_a_promotion_is_refused_with_everything_that_speaks_against_it(place: Place) -> None:
    collection = await place.create()
    place.measured = (
        PromotionCheck(name="recall", passed=False, detail="0.80 of 0.95"),
        PromotionCheck(name="judgments", passed=False, detail="worse beyond the noise"),
        PromotionCheck(name="shadow", passed=None, detail="no searches"),
    )
    version = await place.ready(collection)
    (place.store.space(version)).clear()
    with pytest.raises(PromotionRefused) as refusal:
        await place.promote(collection, 2)
    assert [error.field for error in refusal.value.errors] == ["complete", "recall", "judgments"]
    assert (await place.store.collections.by_name(NAME)).active_version == 1

    promoted = await place.promote(collection, 2, force=True)
    assert promoted.active_version == 2
    (entry, *_) = await FakeAudit(place.store.collections).page(collection.id, None, 1)
    assert (entry.action, entry.actor, entry.version, entry.before) == ("promoted", "eve", 2, 1)
    assert entry.details["forced"] is True
    assert {check["name"]: check["passed"] for check in entry.details["checks"]}["recall"] is False


async def test_only_a_ready_version_is_promoted_forced_or_not(place: Place) -> None:
    collection = await place.create()
    await place.register(collection)
    for force in (False, True):
        with pytest.raises(Conflict, match="backfilling"):
            await place.promote(collection, 2, force=force)
    with pytest.raises(Conflict, match="no version to go back to"):
        await place.flow.roll_back(collection, actor="eve", now=NOW)


async def test_evidence_is_gathered_again_when_it_is_old_or_the_judgments_are_new(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    assert place.examined == 1
    await place.flow.maintain_complete(place.now)
    assert place.examined == 1
    judgments = Judgments(queries={"q": "words"}, grades={"q": {"doc-0": 1}}, uploaded_at=NOW)
    entry = (await FakeAudit(place.store.collections).page(collection.id, None, 1))[0]
    await place.test_sets.put(collection.id, judgments, entry)
    await place.flow.maintain_complete(place.now)
    assert place.examined == 2
    place.at += VALID_FOR + timedelta(seconds=1)
    await place.promote(collection, 2)
    assert place.examined == 3


async def test_a_version_whose_model_is_gone_is_not_promoted_and_its_roll_back_is_refused(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    promoted = await place.promote(collection, 2)
    place.models["hashing:32"] = HashingEncoder(EmbedderSpec(model="hashing:64"))
    place.flow = place.state_machine()
    with pytest.raises(SpaceRefused, match="dimensions"):
        await place.flow.roll_back(promoted, actor="eve", now=NOW)
    with pytest.raises(PromotionRefused) as refusal:
        await place.promote(promoted, 1)
    assert [error.field for error in refusal.value.errors] == ["canary"]


async def test_a_promotion_waits_until_every_api_process_has_the_query_encoder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.versions.promotion_checks.SETTLE_SECONDS", 0.2)
    collection = await place.create()
    await place.ready(collection)
    await place.processes.record_heartbeat(
        ApiProcess(id="other", host="b", seen_at=NOW, proven=frozenset({(collection.id, VersionNumber(1))}))
    )
    await place.processes.record_heartbeat(
        ApiProcess(id="dead", host="c", seen_at=NOW - timedelta(minutes=1), proven=frozenset())
    )
    with pytest.raises(PromotionRefused) as refusal:
        await place.promote(collection, 2)
    assert [(error.field, "1 of 1" in error.message) for error in refusal.value.errors] == [("warm", True)]
    both = frozenset({(collection.id, VersionNumber(1)), (collection.id, VersionNumber(2))})
    await place.processes.record_heartbeat(ApiProcess(id="other", host="b", seen_at=NOW, proven=both))
    assert (await place.promote(collection, 2)).active_version == 2


async def test_of_two_operators_one_promotes(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    await place.ready(collection, EmbedderSpec(model="hashing:8"))
    await place.promote(collection, 2)
    with pytest.raises(Conflict):
        await place.promote(collection, 3)  # what it read is not active any more
    assert (await place.store.collections.by_name(NAME)).active_version == 2


async def test_evidence_against_a_version_that_is_active_no_more_is_gathered_again(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    await place.ready(collection, EmbedderSpec(model="hashing:8"))
    promoted = await place.promote(collection, 2)
    examined = place.examined
    await place.promote(promoted, 3)
    assert place.examined == examined + 1, "it was compared with version 1, and it is version 2 that it would replace"


async def test_old_evidence_does_not_bring_the_version_before_back(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    promoted = await place.flow.roll_back(await place.promote(collection, 2), actor="eve", now=NOW)
    place.at += VALID_FOR + timedelta(seconds=1)
    place.measured = (PromotionCheck(name="recall", passed=False, detail="0.80 of 0.95"),)
    await place.flow.maintain_complete(place.now)
    with pytest.raises(PromotionRefused, match=r"0\.80"):
        await place.promote(promoted, 2)


async def test_a_version_that_got_its_index_after_it_was_measured_is_measured_again(place: Place) -> None:
    collection = await place.create()
    await place.ready(collection)
    place.versions.rows = 101
    await place.state_machine(measure=False).maintain_complete(place.now)
    assert place.versions.built > 0
    examined = place.examined
    await place.promote(collection, 2)
    assert place.examined == examined + 1


async def test_a_version_that_is_searched_farther_than_when_it_was_measured_is_measured_again(place: Place) -> None:
    collection = await place.create()
    place.calibrated = 80  # before it is measured for the first time, so that counts
    await place.ready(collection)
    examined = place.examined
    await place.flow.maintain_complete(place.now)
    assert place.examined == examined
    place.versions.effort = place.calibrated = 100
    await place.flow.maintain_complete(place.now)
    assert place.examined == examined + 1


async def test_an_index_that_somebody_else_builds_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build of a process that was killed goes on in the server, and nobody drives the version meanwhile."""
    collection = await place.create()
    version = await place.register(collection)
    await place.flow.advance_all(place.now)
    await place.encode()
    place.versions.rows = 101
    build = place.versions.build_index

    async def busy(version: EmbedderVersion) -> bool:
        return False

    monkeypatch.setattr(place.versions, "build_index", busy)
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.INDEXING)
    monkeypatch.setattr(place.versions, "build_index", build)
    await place.flow.advance_all(place.now)
    await place.state(version, VersionState.READY)


@pytest.mark.parametrize("error", [Overloaded("busy"), Invalid("odd"), RuntimeError("odd")], ids=lambda one: repr(one))
async def test_trouble_with_one_version_does_not_hold_up_the_others(place: Place, error: Exception) -> None:
    first = await place.create()
    stuck = await place.register(first)
    second = await place.collection_service.create(CollectionName("others"), CollectionSettings(), NOW, actor="ada")
    version = await place.register(second)
    advance = place.backfills.advance

    async def troubled(version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        if version.collection_id == first.id:
            raise error
        return await advance(version, now, window)

    place.backfills.advance = troubled  # type: ignore[method-assign]
    await place.flow.advance_all(place.now)
    await place.state(stuck, VersionState.BACKFILLING)
    await place.state(version, VersionState.READY)


async def test_building_one_index_holds_up_no_other_backfill(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (
        await place.create(),
        await place.collection_service.create(CollectionName("others"), CollectionSettings(), NOW, actor="ada"),
    )
    slow, quick = await place.register(first), await place.register(second)
    backfilling, indexing = (frozenset({state}) for state in (VersionState.BACKFILLING, VersionState.INDEXING))
    await place.flow.advance_all(place.now, backfilling)
    await place.state(quick, VersionState.INDEXING)
    await place.encode()
    place.versions.rows = 101
    build, begun, go_on = place.versions.build_index, asyncio.Event(), asyncio.Event()

    async def slowly(version: EmbedderVersion) -> bool:
        begun.set()
        await go_on.wait()
        return await build(version)

    monkeypatch.setattr(place.versions, "build_index", slowly)
    building = asyncio.create_task(place.flow.advance_all(place.now, indexing))
    await begun.wait()
    await place.flow.advance_all(place.now, backfilling)
    await place.state(slow, VersionState.INDEXING)
    go_on.set()
    await building
    await place.flow.advance_all(place.now)
    for version in (slow, quick):
        await place.state(version, VersionState.READY)


async def test_what_there_is_nothing_to_do_for_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each second of every process: a lock is a connection of its own."""
    collection = await place.create()
    version = await place.register(collection)
    await place.flow.pause(collection, version.number, actor="eve", now=NOW)

    transition_lock, locked = place.versions.transition_lock, 0

    def counted(version: EmbedderVersion, wait_seconds: float = 0.0) -> AbstractAsyncContextManager[bool]:
        nonlocal locked
        locked += 1
        return transition_lock(version, wait_seconds)

    monkeypatch.setattr(place.versions, "transition_lock", counted)
    await place.flow.advance_all(place.now)
    assert locked == 0
    await place.flow.resume(collection, version.number, actor="eve", now=NOW)
    worker = place.state_machine(measure=False)
    await worker.advance_all(place.now)
    await place.encode()
    await worker.advance_all(place.now)
    await place.state(version, VersionState.VERIFYING)
    before = locked
    await worker.advance_all(place.now)
    assert locked == before > 0


async def test_a_version_that_is_far_behind_is_not_complete(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.versions.promotion_checks.SETTLE_SECONDS", 0.05)
    collection = await place.create()
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
