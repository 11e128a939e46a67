"""Applying migrations, on databases of its own."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from service.core.errors import MigrationMismatch, Misconfigured, MissingRights, TimedOut
from service.store.postgres.schema import migrations
from service.store.postgres.schema.migrations import Migration
from tests import schema

pytestmark = pytest.mark.database

ONE = "CREATE TABLE one (a integer);\nINSERT INTO one VALUES (1);\n"
TWO = "ALTER TABLE one ADD COLUMN b integer;\n"
INDEX = """\
-- An index beside running writes; a broken build leaves an invalid one.
-- transaction: false
DROP INDEX CONCURRENTLY IF EXISTS one_a;
CREATE UNIQUE INDEX CONCURRENTLY one_a
    ON one (a);
"""


INSERTED = """
INSERT INTO collections (id, name, settings, active_version, created_at) OVERRIDING SYSTEM VALUE
VALUES (1, 'c', '{{}}', 1, now());
INSERT INTO indexed_fields (collection_id, name, state) VALUES (1, 'a.b', 'ready'), (1, 'c', 'ready');
INSERT INTO documents (
    collection_id, document_id, title, text, metadata, content_hash, revision, content_revision, created_at, updated_at
)
SELECT v.*, '', 1, 1, now(), now() FROM (SELECT c, d, 't', 't', m FROM (VALUES {}) AS w (c, d, m)) AS v
"""


def files(folder: Path, texts: Mapping[str, str]) -> tuple[Migration, ...]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return migrations.read(folder)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


async def test_what_is_missing_runs_in_order_and_once(empty_database_url: str, tmp_path: Path) -> None:
    first = files(tmp_path, {"0001_one.sql": ONE})
    assert await migrations.pending(empty_database_url, first) == first
    assert await migrations.apply(empty_database_url, first) == first
    both = files(tmp_path, {"0002_two.sql": TWO, "remarks.txt": "no migration"})
    assert await migrations.pending(empty_database_url, both) == both[1:]
    assert await migrations.apply(empty_database_url, both) == both[1:]
    assert await migrations.apply(empty_database_url, both) == ()
    assert await migrations.pending(empty_database_url, both) == ()
    assert rows(empty_database_url, "SELECT a, b FROM one") == [(1, None)]
    recorded = rows(empty_database_url, "SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
    assert recorded == [(migration.number, migration.name, migration.sha256) for migration in both]


async def test_stored_metadata_is_brought_to_nfc(empty_database_url: str) -> None:
    """What was sent is kept beside it; a field with a dot in its name is filled again."""
    known = migrations.read()
    await migrations.apply(empty_database_url, known[:8])
    sent = {"1": '{"cafe\u0301": "o\u0308"}', "2": '{"café": "ö"}', "3": '{"a": "line\\n\u0303"}'}
    rows(empty_database_url, INSERTED.format(", ".join(f"(1, '{id_}', '{text}'::jsonb)" for id_, text in sent.items())))
    await migrations.apply(empty_database_url, known)
    query = "SELECT document_id, metadata, coalesce(sent_metadata, metadata) FROM documents ORDER BY document_id"
    stored = {str(id_): (now, before) for id_, now, before in rows(empty_database_url, query)}
    assert {id_: before for id_, (_, before) in stored.items()} == {id_: json.loads(text) for id_, text in sent.items()}
    assert stored["1"][0] == stored["2"][0] == {"café": "ö"}
    assert stored["3"][0] == {"a": "line\n\u0303"}
    states = rows(empty_database_url, "SELECT name, state FROM indexed_fields ORDER BY name")
    assert states == [("a.b", "building"), ("c", "ready")]


async def test_many_starters_migrate_once(empty_database_url: str, tmp_path: Path) -> None:
    scripts = files(tmp_path, {"0001_one.sql": ONE, "0002_index.sql": INDEX, "0003_two.sql": TWO})
    ran = await asyncio.gather(*(migrations.apply(empty_database_url, scripts) for _ in range(8)))
    assert sorted(map(len, ran)) == [0] * 7 + [3]
    assert rows(empty_database_url, "SELECT a, b FROM one") == [(1, None)]


async def test_a_failing_file_leaves_nothing_of_itself_and_all_before_it(
    empty_database_url: str, tmp_path: Path
) -> None:
    broken = files(tmp_path, {"0001_one.sql": ONE, "0002_two.sql": "DROP TABLE one; SELECT 1/0;"})
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrations.apply(empty_database_url, broken)
    assert rows(empty_database_url, "SELECT a FROM one") == [(1,)]
    assert await migrations.pending(empty_database_url, broken) == broken[1:]


async def test_statements_without_a_transaction_are_resumed(empty_database_url: str, tmp_path: Path) -> None:
    scripts = files(
        tmp_path, {"0001_one.sql": ONE + "INSERT INTO one VALUES (1);", "0002_index.sql": INDEX, "0003_two.sql": TWO}
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        await migrations.apply(empty_database_url, scripts)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_a'::regclass"
    assert rows(empty_database_url, valid) == [(False,)]
    rows(empty_database_url, "DELETE FROM one")
    assert await migrations.apply(empty_database_url, scripts) == scripts[1:]
    assert rows(empty_database_url, valid) == [(True,)]


async def test_a_file_that_changed_after_it_ran_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    await migrations.apply(empty_database_url, files(tmp_path, {"0001_one.sql": ONE}))
    changed = files(tmp_path, {"0001_one.sql": ONE + "-- a remark\n"})
    for attempt in (migrations.apply, migrations.pending):
        with pytest.raises(MigrationMismatch, match="0001_one differs"):
            await attempt(empty_database_url, changed)


async def test_line_ends_of_another_system_are_no_change(empty_database_url: str, tmp_path: Path) -> None:
    await migrations.apply(empty_database_url, files(tmp_path, {"0001_one.sql": ONE}))
    (tmp_path / "0001_one.sql").write_bytes(ONE.replace("\n", "\r\n").encode())
    assert await migrations.apply(empty_database_url, migrations.read(tmp_path)) == ()


async def test_a_database_that_is_ahead_of_the_program_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    both = files(tmp_path, {"0001_one.sql": ONE, "0002_two.sql": TWO})
    await migrations.apply(empty_database_url, both)
    with pytest.raises(MigrationMismatch, match="at migration 0002, and this program ends at 0001"):
        await migrations.apply(empty_database_url, both[:1])


@pytest.mark.parametrize("names", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"]])
def test_numbers_are_without_gaps_or_doubles(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(Misconfigured, match="without gaps"):
        files(tmp_path, dict.fromkeys(names, "SELECT 1"))


async def test_a_lock_that_others_hold_is_tried_again_until_patience_ends(
    empty_database_url: str, tmp_path: Path
) -> None:
    scripts = files(tmp_path, {"0001_one.sql": ONE, "0002_two.sql": TWO})
    await migrations.apply(empty_database_url, scripts[:1])
    async with await psycopg.AsyncConnection.connect(empty_database_url) as reader:
        await reader.execute("SELECT * FROM one")
        with pytest.raises(TimedOut, match="0002_two"):
            await migrations.apply(empty_database_url, scripts, lock_timeout_seconds=0.02, patience_seconds=0.1)
        late = asyncio.create_task(migrations.apply(empty_database_url, scripts, lock_timeout_seconds=0.02))
        async with asyncio.timeout(10):
            while not rows(empty_database_url, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"):
                await asyncio.sleep(0.01)
        await reader.rollback()
    assert await late == scripts[1:]


async def test_missing_rights_are_told_in_a_sentence(empty_database_url: str, tmp_path: Path) -> None:
    scripts = files(tmp_path, {"0001_one.sql": ONE})
    rows(empty_database_url, "CREATE ROLE reader_of_migrations LOGIN")
    try:
        url = empty_database_url.replace("postgres@", "reader_of_migrations@")
        with pytest.raises(MissingRights, match="may not change the schema: permission denied for schema public"):
            await migrations.apply(url, scripts)
    finally:
        rows(empty_database_url, "DROP ROLE reader_of_migrations")


def test_the_schema_file_is_what_the_migrations_make(database_url: str) -> None:
    assert schema.FILE.read_text() == schema.dump(database_url), "run `python -m tests.schema`"


def test_the_package_carries_every_migration() -> None:
    top = Path(__file__).parents[2] / "migrations"
    assert [migration.label for migration in migrations.read()] == sorted(file.stem for file in top.glob("[0-9]*.sql"))
