"""Files and backups in S3, over its real protocol: what is new, unchanged and gone, and what is no backup."""

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from s3fs import S3FileSystem

from service.cli import backup
from service.core.errors import Misconfigured
from tests.commands import azimuth
from tests.integration.test_commands import run_process
from tests.s3 import BUCKET, store

pytestmark = [pytest.mark.database, pytest.mark.slow]

PLACE = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, str]]:
    with store() as environment:
        yield environment


def test_what_lies_there_is_searchable_and_kept_up_to_date(client: httpx.Client, settings: dict[str, str]) -> None:
    def ingest(*more: str) -> dict[str, Any]:
        here = ["-c", "stored", "--url", str(client.base_url), "--json", *more]
        done = run_process(["ingest", f"{PLACE}/notes", *here], **settings)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    there = boto3.client("s3", endpoint_url=settings["AWS_ENDPOINT_URL"], region_name="us-east-1", **keys)
    for name in ("notes/harbour.md", "notes/deep/tides.txt", "notesbook/other.txt"):
        there.put_object(Bucket=BUCKET, Key=name, Body=f"words of {name}".encode())
    assert ingest()["created"] == 2
    there.delete_object(Bucket=BUCKET, Key="notes/harbour.md")
    there.put_object(Bucket=BUCKET, Key="notes/new.txt", Body=b"new words")
    again = ingest("--prune")
    assert (again["created"], again["unchanged"], again["deleted"]) == (1, 1, 1)
    listed = [one["id"] for one in client.get("/v1/collections/stored/documents").json()["documents"]]
    assert listed == ["deep/tides.txt", "new.txt"]


def test_what_cannot_be_reached_is_one_sentence(client: httpx.Client, settings: dict[str, str]) -> None:
    def told(place: str, command: str = "ingest", **more: str) -> str:
        here = ["-c", "unreached", "--url", str(client.base_url)] if command == "ingest" else []
        done = run_process([command, place, *here], **settings | more)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        return line

    assert "there is no file" in told(f"{PLACE}/nothing")
    assert "credentials" in told(f"{PLACE}/x", AWS_ACCESS_KEY_ID="")
    denied = f"{settings['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    httpx.post(denied, content="0", trust_env=False).raise_for_status()
    for command in ("ingest", "backup", "restore"):
        assert f"{PLACE}/x cannot be reached: " in told(f"{PLACE}/x", command)
    httpx.post(denied, content="inf", trust_env=False).raise_for_status()
    assert client.get("/v1/collections/unreached").status_code == 404


@pytest.mark.parametrize(("place", "method"), [(tarfile.TarFile, "add"), (S3FileSystem, "_put_file")])
def test_what_broke_off_is_no_backup(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, place: type, method: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("it breaks off")

    async def broken_there(*_: object, **__: object) -> None:
        broken()

    async def nothing(*_: object) -> dict[str, Any]:
        return {"versions": [], "lexical": 0}

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backup, "_backup", nothing)
    target = f"{PLACE}/{method}"
    with monkeypatch.context() as for_once:
        for_once.setattr(place, method, broken if method == "add" else broken_there)
        S3FileSystem.clear_instance_cache()
        with pytest.raises(Misconfigured, match="it breaks off"):
            azimuth("backup", target)
    S3FileSystem.clear_instance_cache()
    refused = azimuth("restore", target)
    assert (refused.exit_code, "is no whole backup" in refused.stderr) == (2, True)
    assert "exists" in azimuth("backup", target).stderr
    assert azimuth("backup", f"{target}-again").exit_code == 0
