"""Which servers are refused, and in which words."""

import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from service.core.errors import DatabaseTooOld, DatabaseUnavailable, Misconfigured, MissingRights
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.schema import migrations
from service.store.postgres.schema import server_checks as checks
from service.store.postgres.schema.server_checks import ServerFacts
from tests.conftest import url_of

SOUND = ServerFacts(
    server_version=180004,
    encoding="UTF8",
    database="search",
    role="azimuth",
    vector_installed="0.8.5",
    vector_available="0.8.5",
    vector_hidden=False,
    may_create_extension=True,
    schema="public",
    may_create_tables=True,
    owner="azimuth",
    owns_tables=True,
)


def test_a_sound_server_passes_without_a_word() -> None:
    checks.require_usable(SOUND)
    assert checks.warnings(SOUND) == ()


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        (replace(SOUND, server_version=130022), DatabaseTooOld, "PostgreSQL 13, and 14 or newer"),
        (replace(SOUND, encoding="SQL_ASCII"), Misconfigured, "encoded in SQL_ASCII"),
        (replace(SOUND, vector_installed=None, vector_available=None), DatabaseTooOld, "has no pgvector"),
        (replace(SOUND, vector_installed="0.7.4"), DatabaseTooOld, "pgvector 0.7.4.*ALTER EXTENSION vector UPDATE"),
        (
            replace(SOUND, vector_installed="0.7.4", vector_available="0.7.4"),
            DatabaseTooOld,
            "install a newer one on the server",
        ),
        (replace(SOUND, vector_installed=None, vector_available="0.5.1"), DatabaseTooOld, "pgvector 0.5.1"),
        (replace(SOUND, vector_hidden=True), Misconfigured, "does not search"),
        (replace(SOUND, vector_installed=None, may_create_extension=False), MissingRights, "CREATE EXTENSION vector"),
        (replace(SOUND, schema=None), MissingRights, "no schema"),
        (replace(SOUND, may_create_tables=False), MissingRights, "GRANT CREATE ON SCHEMA public TO azimuth"),
        (replace(SOUND, owner="other", owns_tables=False), MissingRights, "belong to other"),
    ],
)
def test_an_unfit_server_is_refused_in_one_clear_sentence(
    facts: ServerFacts, error: type[Misconfigured], message: str
) -> None:
    with pytest.raises(error, match=message):
        checks.require_usable(facts)


@pytest.mark.parametrize("version", ["0.8.0", "0.8.1", "0.8.3"])
def test_a_pgvector_with_known_faults_passes_with_a_warning(version: str) -> None:
    facts = replace(SOUND, vector_installed=version)
    checks.require_usable(facts)
    (warning,) = checks.warnings(facts)
    assert f"pgvector {version} has known faults" in warning
    assert "CVE-2026-3172" in warning


@pytest.mark.parametrize("version", ["0.8.4", "0.9.0", "1.0.0", "0.10.0"])
def test_newer_ones_pass_without_a_warning(version: str) -> None:
    facts = replace(SOUND, vector_installed=version)
    checks.require_usable(facts)
    assert checks.warnings(facts) == ()


@pytest.mark.database
async def test_the_embedded_server_passes_before_and_after_the_migrations(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        before = await checks.check(empty_database_url)
        await migrations.apply(empty_database_url)
        after = await checks.check(empty_database_url)
    assert (before.vector_installed, after.vector_installed) == (None, after.vector_available)
    assert (before.owner, after.owner) == (None, "postgres")
    assert caplog.messages == []


@pytest.fixture
def as_role(server: EmbeddedServer) -> Iterator[Callable[[str], str]]:
    """Makes an ordinary role; answers the URL of a database as that role."""
    role = sql.Identifier("ordinary")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        yield lambda url: url.replace("postgres@", "ordinary@")
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.database
async def test_an_ordinary_role_is_told_what_it_lacks_until_it_lacks_nothing(
    as_role: Callable[[str], str], empty_database_url: str
) -> None:
    url = as_role(empty_database_url)
    with pytest.raises(MissingRights, match="may not create the extension vector"):
        await checks.check(url)
    execute(empty_database_url, "CREATE EXTENSION vector")
    with pytest.raises(MissingRights, match="GRANT CREATE ON SCHEMA public TO ordinary"):
        await checks.check(url)
    execute(empty_database_url, "GRANT CREATE ON SCHEMA public TO ordinary")
    assert (await checks.check(url)).role == "ordinary"
    assert await migrations.apply(url) == migrations.read()
    assert (await checks.check(url)).owner == "ordinary"
    execute(empty_database_url, "DROP OWNED BY ordinary")


@pytest.mark.database
async def test_tables_of_another_role_are_refused(as_role: Callable[[str], str], database_url: str) -> None:
    execute(database_url, "GRANT CREATE ON SCHEMA public TO ordinary")
    with pytest.raises(MissingRights, match="belong to postgres"):
        await checks.check(as_role(database_url))
    execute(database_url, "REVOKE CREATE ON SCHEMA public FROM ordinary")


@pytest.mark.database
async def test_an_extension_out_of_sight_is_told(empty_database_url: str) -> None:
    execute(empty_database_url, "CREATE SCHEMA elsewhere")
    execute(empty_database_url, "CREATE EXTENSION vector SCHEMA elsewhere")
    with pytest.raises(Misconfigured, match="does not search"):
        await checks.check(empty_database_url)


async def test_a_silent_address_is_told_with_host_and_port_and_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(DatabaseUnavailable) as caught:
        await checks.check(f"postgresql://someone:s3cret@127.0.0.1:{port}/search")
    assert "127.0.0.1" in caught.value.detail
    assert str(port) in caught.value.detail
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.database
async def test_an_unknown_database_is_told(server: EmbeddedServer) -> None:
    with pytest.raises(DatabaseUnavailable, match='database "nothing" does not exist'):
        await checks.check(url_of(server, "nothing"))


@pytest.mark.parametrize("url", ["postgresql//someone:s3cret@host/search", "postgresql://someone:s3cret@[host/search"])
async def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(Misconfigured, match="AZIMUTH_DATABASE_URL") as caught:
        await checks.check(url)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"
