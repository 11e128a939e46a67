"""`azimuth backup` and `azimuth restore`: database and lexical indexes in one folder, and which models they need.

The indexes are copied first, so that the database of the backup knows the marks of all of them. In an object store the
folder is one archive, because stores have no empty folders, which PostgreSQL needs.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from service import __version__
from service.cli import shell
from service.core.errors import Misconfigured
from service.core.periodic import utc_now
from service.ingest.files.remote import reaching
from service.runtime.settings import Settings

Place = Annotated[str, typer.Argument(help="Folder of the backup, or an address such as `s3://bucket/monday`.")]
MANIFEST, ARCHIVE = "manifest.json", "backup.tar"


@shell.answering
def backup(place: Place) -> shell.Answer:
    """Back up the database and the lexical indexes, also while the service runs, to a new folder.

    The embedded server: a base backup, with what is written meanwhile. Another one: a dump, by `pg_dump`.
    """
    with _new_folder(place) as folder:
        manifest = asyncio.run(_backup(Settings(), folder))
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))  # last: it says that the backup is whole
    shell.print_err(f"{place}: {len(manifest['versions'])} versions, {manifest['lexical']} lexical indexes", style="")
    return shell.Answer({"backup": place, **manifest})


@contextmanager
def _new_folder(place: str) -> Iterator[Path]:
    """A folder that becomes the backup, or of which an archive does."""
    if "://" not in place:
        folder = Path(place)
        if folder.exists():
            shell.fail(f"{folder} exists: name a new folder")
        folder.mkdir(mode=0o700, parents=True)  # whoever reads it reads all documents
        yield folder
        return
    with reaching(place) as (files, root):
        found = files.exists(root)
    if found:
        shell.fail(f"{place} exists: name a new address")
    with TemporaryDirectory() as staged:
        yield Path(staged)
        with reaching(place) as (files, root):
            with files.open(f"{root}/{ARCHIVE}", "wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
                archive.add(staged, ".")
            files.put_file(f"{staged}/{MANIFEST}", f"{root}/{MANIFEST}")


@contextmanager
def _folder_of(place: str) -> Iterator[Path]:
    """The folder of a backup, which is fetched where it is an archive elsewhere."""
    if "://" not in place:
        yield Path(place)
        return
    with TemporaryDirectory() as folder:
        with reaching(place) as (files, root):
            if files.exists(f"{root}/{MANIFEST}"):
                with files.open(f"{root}/{ARCHIVE}", "rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
                    archive.extractall(folder, filter="data")
        yield Path(folder)


@shell.answering
def restore(
    place: Place,
    lexical_only: Annotated[
        bool, typer.Option("--lexical-only", help="For an API process that joins: its database has all else.")
    ] = False,
) -> shell.Answer:
    """Restore a backup into a new data folder, or into the database of AZIMUTH_DATABASE_URL in place of its tables.

    Indexes that do not fit the database are left out, and are built anew by the service.
    """
    with _folder_of(place) as folder:
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            shell.fail(f"{place} is no whole backup: {error}")
        settings = Settings()
        if not lexical_only:
            _restore_database(settings, folder)
        copied = asyncio.run(_copy(settings, folder / "lexical", settings.data_dir / "lexical"))
    shell.print_err(f"{copied} of {manifest['lexical']} lexical indexes restored", style="")
    for version in manifest["versions"]:
        shell.print_err("needs {model} {revision} with the fingerprint {fingerprint}".format_map(version), style="")
    return shell.Answer({"backup": place, "restored_lexical": copied, **manifest})


async def _backup(settings: Settings, folder: Path) -> dict[str, Any]:
    from service.runtime.processes import open_database
    from service.store.embedded.server import EmbeddedServer

    async with open_database(settings) as store:
        versions = [one for each in await store.collections.all() for one in await store.versions.of(each.id)]
        lexical = await _copy(settings, settings.data_dir / "lexical", folder / "lexical")
        if settings.database_url is None:
            url = EmbeddedServer(settings.data_dir / "postgres").url
            options = ["--checkpoint=fast", "--manifest-checksums=SHA256"]
            command = ["pg_basebackup", *options, f"--dbname={url}", f"--pgdata={folder / 'postgres'}"]
        else:
            url = settings.database_url
            command = ["pg_dump", "--format=custom", f"--file={folder / 'database.dump'}", f"--dbname={url}"]
        await asyncio.to_thread(_run, command)
    return {
        "version": __version__,
        "created_at": utc_now().isoformat(),
        "lexical": lexical,
        "versions": [
            {"model": one.spec.model, "revision": one.spec.revision or "", "fingerprint": one.fingerprint}
            for one in versions
            if one.written
        ],
    }


async def _copy(settings: Settings, source: Path, target: Path) -> int:
    from service.runtime.processes import open_database
    from service.store.lexical.snapshot import copy_indexes
    from service.store.postgres.schema import server_checks

    async with open_database(settings) as store:
        name = str(await server_checks.installation(store.pool))
        return await copy_indexes(source / name, target / name, store.changes, utc_now())


def _restore_database(settings: Settings, folder: Path) -> None:
    if settings.database_url is not None:
        options = ["--clean", "--if-exists", "--single-transaction", "--no-owner", f"--dbname={settings.database_url}"]
        _run(["pg_restore", *options, str(folder / "database.dump")])
        return
    target = settings.data_dir / "postgres"
    if target.exists():
        shell.fail(f"{target} exists: set AZIMUTH_DATA_DIR to a new folder")
    _check_files(folder / "postgres")
    from service.store.embedded.account import server_account

    account = server_account(target)
    shutil.copytree(folder / "postgres", target, ignore=shutil.ignore_patterns(".s.PGSQL*", "azimuth.conf"))
    target.chmod(0o700)
    if account is not None:
        for path in (target, *target.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)


def _check_files(backup: Path) -> None:
    """Compare them with the list of the base backup; the log that belongs to it has checksums of its own."""
    try:
        for file in json.loads((backup / "backup_manifest").read_bytes())["Files"]:
            with (backup / file["Path"]).open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if digest != file["Checksum"]:
                shell.fail(f"{backup / file['Path']} is damaged")
    except (OSError, ValueError, LookupError) as error:
        shell.fail(f"{backup} is damaged: {error}")


def _run(command: list[str]) -> None:
    """A program of PostgreSQL: of the embedded server, which is the newest, or one that is installed."""
    from service.store.embedded.server import programs

    try:
        program: str | Path = programs() / command[0]
    except Misconfigured:
        program = shutil.which(command[0]) or shell.fail(f"{command[0]} of PostgreSQL is not installed here")
    password = urlsplit(Settings().database_url or "").password
    environment = os.environ | ({} if password is None else {"PGPASSWORD": unquote(password)})
    # Arguments can be read by other users of the machine.
    arguments = [one.replace(f":{password}@", "@") for one in command[1:]]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)  # noqa: S603 a fixed program
    if done.returncode:
        shell.fail(f"{command[0]}: {done.stderr.strip()}", shell.EXIT_UNREACHABLE)
