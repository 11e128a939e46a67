"""The first version of a world with another storage of its vectors."""

import dataclasses

from service.core.collections import IndexKind, IndexSettings, Storage
from service.store.postgres.vectors import vector_tables
from tests.world import World

STORAGES: tuple[Storage, ...] = ("halfvec", "vector", "binary", "scalar")


def sealed(collection_id: int, number: int = 1) -> str:
    """SQL for the seal of `embedding`, a halfvec, in rows that a test makes inside the database."""
    digest = f"sha256(halfvec_send(embedding) || '{collection_id}/{number}'::bytea)"
    return f"substring({digest} FOR {vector_tables.SEAL_BYTES})"


async def stored_as(world: World, storage: Storage, kind: IndexKind = "hnsw") -> World:
    """The same world, its table still empty, with its vectors stored and to be indexed in this way."""
    index = IndexSettings(storage=storage, kind=kind)
    if index == world.version.index:
        return world
    version = dataclasses.replace(world.version, index=index)
    if world.pool is not None:
        async with world.pool.transaction() as connection:
            await connection.execute(vector_tables.drop_table(version.collection_id, version.number))
            for statement in vector_tables.create_table(
                version.collection_id, version.number, version.dimensions, storage
            ):
                await connection.execute(statement)
    return dataclasses.replace(world, version=version)
