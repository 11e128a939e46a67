"""Helpers for a second version beside the first: filling it, and damaging what it contains."""

import dataclasses
from datetime import datetime

from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.ids import DocumentId
from service.core.jobs import Lane
from service.core.ports.backfills import Backfills
from service.core.versions import EmbedderVersion, VersionState
from service.store.postgres.versions.backfills import PostgresBackfills
from tests.fakes import FakeBackfills, Waiting
from tests.world import DIMENSIONS, LEASE, NOW, World, encoded


async def add_external(world: World, number: int, state: VersionState) -> EmbedderVersion:
    """A version whose vectors the client brings."""
    spec = EmbedderSpec(model=EXTERNAL, dimensions=DIMENSIONS, identity="theirs")
    external = dataclasses.replace(world.version, spec=spec)
    return await dataclasses.replace(world, version=external).add_version(number, state)


async def drain(world: World, version: EmbedderVersion, *, now: datetime = NOW, worker: str = "w1") -> int:
    """Encode everything of both lanes that can be claimed, as a worker does. Answers how many were stored."""
    lanes: tuple[Lane, ...] = ("live", "backfill")
    stored = 0
    for lane in lanes:
        while claimed := await world.queue.claim([version], 50, worker, now, LEASE, lane):
            stored += len(await world.vectors.write(version, [encoded(one) for one in claimed]))
    return stored


async def enqueue(
    world: World, version: EmbedderVersion, name: str, content_revision: int = 1, priority: int = 2
) -> None:
    """A job of the backfill, whatever the document is like by now, in place of any job that is there."""
    if world.fake is not None:
        key = (version.collection_id, DocumentId(name), version.number)
        world.fake.jobs[key] = Waiting(content_revision, NOW, NOW, priority)
        return
    await world.execute(
        """
        INSERT INTO jobs (
            collection_id, document_id, embedder_version, content_revision, priority, enqueued_at, available_at
        )
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (collection_id, document_id, embedder_version) DO UPDATE SET
            content_revision = excluded.content_revision, priority = excluded.priority
        """,
        version.collection_id,
        name,
        version.number,
        content_revision,
        priority,
        NOW,
        NOW,
    )


async def set_state(
    world: World, version: EmbedderVersion, state: VersionState, *, paused: bool = False
) -> EmbedderVersion:
    """Without anything that goes with it."""
    moved = dataclasses.replace(version, state=state, paused=paused)
    if world.fake is not None:
        versions = world.fake.collections.versions[version.collection_id]
        versions[:] = [moved if one.number == version.number else one for one in versions]
        return moved
    await world.execute(
        "UPDATE embedder_versions SET state = %s, paused = %s WHERE collection_id = %s AND number = %s",
        state.value,
        paused,
        version.collection_id,
        version.number,
    )
    return moved


def backfills_of(world: World) -> Backfills:
    return FakeBackfills(world.fake) if world.fake is not None else PostgresBackfills(world.database)


async def lose_vectors(world: World, version: EmbedderVersion, name: str) -> None:
    if world.fake is not None:
        space = world.fake.space(version)
        for key in [key for key in space if key[0] == name]:
            del space[key]
        return
    await world.execute(f"DELETE FROM {_table(version)} WHERE document_id = %s", name)


async def age_vectors(world: World, version: EmbedderVersion, name: str) -> None:
    """As if they were of the content before."""
    if world.fake is not None:
        for key, row in world.fake.space(version).items():
            row.content_revision -= key[0] == name
        return
    await world.execute(
        f"UPDATE {_table(version)} SET content_revision = content_revision - 1 WHERE document_id = %s", name
    )


async def lose_document(world: World, _: EmbedderVersion, name: str) -> None:
    """The document alone: its vectors stay behind."""
    if world.fake is not None:
        del world.fake.documents[world.collection.id, DocumentId(name)]
        return
    await world.execute(
        "DELETE FROM documents WHERE collection_id = %s AND document_id = %s", world.collection.id, name
    )


def _table(version: EmbedderVersion) -> str:
    return f"vectors_{version.collection_id}_{version.number}"
