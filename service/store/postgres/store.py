"""All of PostgreSQL's adapters over one pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.store.postgres.api_keys import PostgresApiKeys
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


class Store:
    """The adapters of all ports over one pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.collections = PostgresCollections(pool)
        self.versions = PostgresVersions(pool)
        self.documents = PostgresDocuments(pool)
        self.queue = PostgresQueue(pool)
        self.vectors = PostgresVectors(pool)
        self.changes = PostgresChanges(pool)
        self.backfills = PostgresBackfills(pool)
        self.audit = PostgresAudit(pool)
        self.test_sets = PostgresTestSets(pool)
        self.processes = PostgresProcesses(pool)
        self.recalls = PostgresRecalls(pool)
        self.indexes = PostgresIndexes(pool)
        self.api_keys = PostgresApiKeys(pool)
        self.fields = IndexedFields(pool)


@asynccontextmanager
async def open_store(url: str, *, name: str, pool_size: int, statement_timeout_seconds: float) -> AsyncIterator[Store]:
    """Check the server and open the pool. DatabaseTooOld, MissingRights or DatabaseUnavailable where it is unusable."""
    await server_checks.check(url)
    pool = await open_pool(
        url, size=pool_size, statement_timeout_seconds=statement_timeout_seconds, application_name=f"azimuth-{name}"
    )
    async with pool:
        yield Store(pool)
