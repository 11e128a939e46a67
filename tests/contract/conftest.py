"""The world that the suites of the data path run in: once in memory, once in PostgreSQL."""

import pytest

from service.store.postgres.connection.pool import Pool
from service.store.postgres.store import Store
from tests.fakes import FakeAdapters
from tests.world import Adapters, World, build


@pytest.fixture
async def memory() -> World:
    return await build(None)


@pytest.fixture
async def postgres(pool: Pool) -> World:
    """For what only a real database can show."""
    return await build(pool)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
def store(request: pytest.FixtureRequest) -> Adapters:
    """Adapters without any collection."""
    return FakeAdapters() if request.param == "memory" else Store(request.getfixturevalue("pool"))


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
def world(request: pytest.FixtureRequest) -> World:
    built: World = request.getfixturevalue(request.param)
    return built
