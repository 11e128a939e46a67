"""All of PostgreSQL's adapters over one pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.store.postgres.audit import PostgresAudit
from service.store.postgres.change_feed import PostgresChanges
from service.store.postgres.collections import PostgresCollections
from service.store.postgres.connection.pool import Pool, open_pool
from service.store.postgres.documents import PostgresDocuments
from service.store.postgres.filters.indexed_fields import IndexedFields
from service.store.postgres.processes import PostgresProcesses
from service.store.postgres.queue import PostgresQueue
from service.store.postgres.recall import PostgresRecalls
from service.store.postgres.schema import server_checks
from service.store.postgres.test_sets import PostgresTestSets
from service.store.postgres.vectors.index_health import PostgresIndexes
from service.store.postgres.vectors.vectors import PostgresVectors
from service.store.postgres.versions.backfills import PostgresBackfills
from service.store.postgres.versions.versions import PostgresVersions


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
    await server_checks.check(url)
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
