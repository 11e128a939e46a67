"""A search that reads a replica of the database, where one is near enough."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from service.core.errors import Conflict, DatabaseUnavailable, Invalid, NotFound, Unavailable
from service.core.ports.replicas import ReadReplicas
from service.core.search import SearchResult


async def search(
    replicas: ReadReplicas | None, revision: int, run: Callable[[], Awaitable[SearchResult]]
) -> SearchResult | None:
    """The result of `run`; None where it has to be run again without a replica.

    That is where none is near enough, where it ended meanwhile, and where it refuses the search: what that names may
    have been made a moment ago.
    """
    if replicas is None:
        return None
    with replicas.reading(revision) as lag:
        if lag is None:
            return None
        try:
            result = await run()
        except (NotFound, Invalid, Conflict, Unavailable):
            return None
    lost = any(one.code == DatabaseUnavailable.__name__ for one in result.degraded)
    return None if lost else replace(result, replica_lag_seconds=lag)
