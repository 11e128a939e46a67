"""The database moves to a newer major version of PostgreSQL, by `pg_upgrade` or by a dump, as the manual describes.

The wheel of the embedded server carries two major versions; where it has no older one, the tests are skipped.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from service.store.embedded.account import grant_traversal, server_account
from service.store.embedded.server import MAJOR, programs
from tests.faults.machine import COLLECTION, Machine, Writer, assert_everything_is_there_once, running, settle
from tests.faults.test_restore import azimuth

NEW, OLD = programs(), programs().parents[1] / "pginstall" / "bin"
SETTINGS = {"EXACT_BELOW": "10"}  # so that there is an HNSW index

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not OLD.exists(), reason="no older PostgreSQL in the wheel")]


class Cluster:
    """A server of one major version, without checksums, which only newer versions make by default."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self._binaries, self._account = folder, binaries, server_account(folder)
        self.url = f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"
        folder.mkdir(mode=0o700)
        if self._account is not None:
            grant_traversal(self._account, folder, binaries)
            shutil.chown(folder, self._account.pw_uid, self._account.pw_gid)
        checksums = ["--no-data-checksums"] if binaries == NEW else []
        self.run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", *checksums)

    def run(self, program: str, *arguments: str) -> None:
        account: dict[str, Any] = {"user": self._account.pw_uid, "group": self._account.pw_gid} if self._account else {}
        command = [str(self._binaries / program), *arguments]
        environment = {**os.environ, "PGDATA": str(self.folder)}
        subprocess.run(command, check=True, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, **account)

    @contextmanager
    def started(self) -> Iterator[None]:
        options = f"-c unix_socket_directories={self.folder} -c listen_addresses="
        self.run("pg_ctl", "start", "--wait", f"--log={self.folder}/server.log", f"--options={options}")
        try:
            yield
        finally:
            self.run("pg_ctl", "stop", "--wait")


def contents(machine: Machine) -> list[Any]:
    """All vectors with their seals, and whether their index is valid."""
    vectors = machine.select("SELECT v.*::text FROM vectors_1_1 v ORDER BY document_id, chunk")
    valid = "SELECT indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam"
    return [vectors, machine.select(f"{valid} WHERE amname = 'hnsw'")]


@pytest.mark.parametrize("way", ["dump", "pg_upgrade"])
def test_a_newer_major_version_has_all_that_the_older_one_had(scratch: Path, way: str) -> None:
    old, new = Cluster(scratch / f"{way}-16", OLD), Cluster(scratch / f"{way}-18", NEW)
    with old.started(), running(scratch / way, {}, DATABASE_URL=old.url, **SETTINGS) as machine:
        writer = Writer(machine, 1, 60)
        writer.write_all()
        settle(machine)
        machine.until(lambda: contents(machine)[1] == [(True,)], lambda: contents(machine)[1], 60)
        before = contents(machine)
        key = machine.send("POST", "/v1/keys", json={"role": "admin"}).json()["secret"]
        if way == "dump":
            azimuth(machine, "backup", str(scratch / f"{way}-backup"))
    after = Machine(scratch / way, DATABASE_URL=new.url, KEY=key, **SETTINGS)
    after.http.headers["Authorization"] = f"Bearer {key}"
    if way == "pg_upgrade":
        programs_of = [f"--old-bindir={OLD}", f"--new-bindir={NEW}", f"--socketdir={new.folder}"]
        data_of = [f"--old-datadir={old.folder}", f"--new-datadir={new.folder}"]
        new.run("pg_upgrade", "--link", "--username=postgres", *programs_of, *data_of)
    with new.started():
        if way == "dump":
            azimuth(after, "restore", str(scratch / f"{way}-backup"))
        after.execute("ALTER EXTENSION vector UPDATE")
        after.start()
        try:
            assert contents(after) == before  # nothing was encoded anew
            assert after.select("SHOW server_version_num")[0][0] >= f"{MAJOR}0000"
            assert_everything_is_there_once(after, writer.state)
            with after.client() as anybody:
                assert anybody.get(COLLECTION).status_code == 401
            writer = Writer(after, 2, 60)
            writer.write_all()
            settle(after)
            assert_everything_is_there_once(after, writer.state)
        finally:
            after.stop()
