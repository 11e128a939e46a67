"""All of PostgreSQL's adapters over one pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.store import server
from service.store.audit import PostgresAudit
from service.store.backfills import PostgresBackfills
from service.store.changes import PostgresChanges
from service.store.collections import PostgresCollections
from service.store.documents import PostgresDocuments
from service.store.health import PostgresIndexes
from service.store.indexed import IndexedFields
from service.store.pool import Pool, open_pool
from service.store.processes import PostgresProcesses
from service.store.queue import PostgresQueue
from service.store.recall import PostgresRecalls
from service.store.test_sets import PostgresTestSets
from service.store.vectors import PostgresVectors
from service.store.versions import PostgresVersions


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    pool: Pool
    collections: PostgresCollections
    versions: PostgresVersions
    documents: PostgresDocuments
    queue: PostgresQueue
    vectors: PostgresVectors
    changes: PostgresChanges
    backfills: PostgresBackfills
    audit: PostgresAudit
    test_sets: PostgresTestSets
    processes: PostgresProcesses
    recalls: PostgresRecalls
    indexes: PostgresIndexes
    fields: IndexedFields


@asynccontextmanager
async def open_store(url: str, *, name: str, pool_size: int, statement_timeout_seconds: float) -> AsyncIterator[Store]:
    """Check the server, open the pool. DatabaseTooOld, MissingRights or DatabaseUnavailable where it cannot serve."""
    await server.check(url)
    pool = await open_pool(
        url,
        size=pool_size,
        statement_timeout_seconds=statement_timeout_seconds,
        application_name=f"azimuth-{name}",
    )
    try:
        yield Store(
            pool=pool,
            collections=PostgresCollections(pool),
            versions=PostgresVersions(pool),
            documents=PostgresDocuments(pool),
            queue=PostgresQueue(pool),
            vectors=PostgresVectors(pool),
            changes=PostgresChanges(pool),
            backfills=PostgresBackfills(pool),
            audit=PostgresAudit(pool),
            test_sets=PostgresTestSets(pool),
            processes=PostgresProcesses(pool),
            recalls=PostgresRecalls(pool),
            indexes=PostgresIndexes(pool),
            fields=IndexedFields(pool),
        )
    finally:
        await pool.close()
