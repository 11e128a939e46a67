"""Which files a source has: a file, a folder, a glob or an address, and what archives hold."""

import bz2
import gzip
import lzma
import mimetypes
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from glob import glob, has_magic
from os import walk
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import httpx

from service.core.errors import Misconfigured, raised_as
from service.ingest.files.remote import reaching

MAX_FILE_BYTES = 2 * 2**30
"""Of one file, and of all that an archive unpacks to."""
MAX_RATIO, FREE_BYTES = 100, 64 * 2**20
"""An archive that unpacks to more than the latter, and to more than so many times its size, is a bomb."""
MAX_MEMBERS = 100_000
UNREAD_FOLDERS = {"node_modules", "__pycache__", "venv"}
"""Not entered, nor are those whose name begins with a dot."""
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BINARY = re.compile(r"(image|audio|video|font)/|application/(octet-stream|x-python-code|java-archive|vnd\.sqlite3)")


Entry = tuple[str, Callable[[], Any] | None]
"""The name of what an archive holds, and what opens it; None for links and devices."""


class Unreadable(Exception):
    """A file cannot be read; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFile:
    """`name`: its path within the source, with slashes. `path`: where it lies now.

    `problem`: why it cannot be read; `skipped`: it is of a kind that has no text, which is no failure.
    """

    name: str
    path: Path
    modified: str = ""
    problem: str = ""
    skipped: bool = False


def found_files(source: str, folder: Path) -> Iterator[FoundFile]:
    """The files of a source in the order of their names; what is fetched lies in `folder`. Misconfigured: no source."""
    if "://" in source:
        yield from _fetched(source, folder)
        return
    path = Path(source)
    if path.is_dir():
        yield from _of_folder(path)
    elif path.exists():
        yield _on_disk(path.name, path)
    elif has_magic(source):
        parts = Path(source).parts
        fixed = next(at for at, part in enumerate(parts) if has_magic(part))
        root = Path(*parts[:fixed])
        names = sorted(glob(str(Path(*parts[fixed:])), root_dir=root, recursive=True))
        yield from (_within(root, Path(name).as_posix()) for name in names if (root / name).is_file())
    else:
        raise Misconfigured(f"there is no file {source}")


def _of_folder(root: Path) -> Iterator[FoundFile]:
    for folder, folders, files in walk(root):
        for name in [one for one in folders if (Path(folder) / one).is_symlink()]:
            yield _within(root, (Path(folder) / name).relative_to(root).as_posix())
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one not in UNREAD_FOLDERS)
        for name in sorted(one for one in files if not one.startswith(".")):
            yield _within(root, (Path(folder) / name).relative_to(root).as_posix())


def _within(root: Path, name: str) -> FoundFile:
    path = root / name
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        return FoundFile(name=name, path=path, problem="is a link that leads out of the folder")
    if path.is_dir():
        return FoundFile(name=name, path=path, problem="is a link to a folder", skipped=True)
    return _on_disk(name, path)


def _on_disk(name: str, path: Path) -> FoundFile:
    try:
        if not path.is_file():
            return FoundFile(name=name, path=path, problem="is no regular file")
        state = path.stat()
    except OSError as error:
        return FoundFile(name=name, path=path, problem=error.strerror or str(error))
    modified = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds")
    return checked(FoundFile(name=name, path=path, modified=modified))


def checked(found: FoundFile) -> FoundFile:
    """With a problem where its name or size is one."""
    size = found.path.stat().st_size
    kind = mimetypes.guess_type(found.name)[0] or ""
    if _BINARY.match(kind) and not found.name.endswith((".svg", ".ts")):
        return replace(found, problem=f"has no text ({kind})", skipped=True)
    if not size:
        return replace(found, problem="is empty", skipped=True)
    return replace(found, problem=f"is larger than {MAX_FILE_BYTES} bytes") if size > MAX_FILE_BYTES else found


def _fetched(url: str, folder: Path) -> Iterator[FoundFile]:
    """What lies at an address: of http(s) one file, of all others (s3, gs, ...) whatever fsspec lists below it."""
    target = folder / "fetched"
    if url.startswith(("http://", "https://")):
        with (
            raised_as(Misconfigured, f"{url} cannot be fetched", httpx.HTTPError),
            httpx.stream("GET", url, follow_redirects=True, timeout=60) as answer,
        ):
            answer.raise_for_status()
            with target.open("wb") as file:
                for part in answer.iter_bytes():
                    if file.write(part) and file.tell() > MAX_FILE_BYTES:
                        raise Misconfigured(f"{url} is larger than {MAX_FILE_BYTES} bytes")
        name = unquote(PurePosixPath(urlsplit(str(answer.url)).path).name) or "index"
        if not PurePosixPath(name).suffix:
            kind = answer.headers.get("content-type", "").partition(";")[0]
            name += mimetypes.guess_extension(kind) or ""
        yield checked(FoundFile(name=name, path=target))
        return
    with reaching(url) as (files, root):
        paths = files.find(root)
    if not paths:
        raise Misconfigured(f"there is no file {url}")
    for path in paths:
        name = PurePosixPath(path).name if path == root else path.removeprefix(root).lstrip("/")
        try:
            with reaching(url):
                files.get_file(path, str(target))
        except Misconfigured as error:
            yield FoundFile(name=name, path=target, problem=str(error))
        else:
            yield checked(FoundFile(name=name, path=target))


def is_archive(name: str) -> bool:
    return name.lower().endswith((".zip", ".tar", ".tgz", *OPENERS))


def unpack(found: FoundFile, folder: Path) -> Sequence[FoundFile]:
    """The files of an archive, or the one that is compressed, in `folder`. Unreadable where the archive is damaged.

    Names of members never become paths on this machine. What leads out of the archive, is encrypted or is an archive
    itself is a problem of its own, and so is the rest of one that unpacks to more than it may.
    """
    left = min(MAX_FILE_BYTES, max(FREE_BYTES, MAX_RATIO * found.path.stat().st_size))
    inner, opener = PurePosixPath(found.name), None
    if inner.suffix.lower() in {*OPENERS, ".tgz"}:
        opener = OPENERS.get(inner.suffix.lower(), gzip.open)
        inner = inner.with_suffix(".tar" if inner.suffix.lower() == ".tgz" else "")
    try:
        if opener is not None:
            plain = folder / "plain"
            with opener(found.path) as packed:
                _copy(packed, plain, left)
            found = replace(found, name=inner.as_posix(), path=plain)
            if inner.suffix.lower() != ".tar":
                nested = is_archive(found.name) or inner.suffix.lower() == ".zip"
                return [replace(found, problem="is an archive within an archive") if nested else checked(found)]
        if inner.suffix.lower() == ".tar":
            with tarfile.open(found.path, "r:") as tar:
                entries: Iterator[Entry] = (
                    (one.name, partial(tar.extractfile, one) if one.isfile() else None)
                    for one in tar
                    if not one.isdir()
                )
                return list(_members(found, folder, entries, left))
        with zipfile.ZipFile(found.path) as archive:
            entries = ((one.filename, partial(archive.open, one)) for one in archive.infolist() if not one.is_dir())
            return list(_members(found, folder, entries, left))
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # whatever damage the standard library did not foresee
        raise Unreadable(f"is damaged: {error}") from error


def _members(found: FoundFile, folder: Path, entries: Iterator[Entry], left: int) -> Iterator[FoundFile]:
    for number, (name, opened) in enumerate(entries):
        one = replace(found, name=f"{found.name}/{name.removeprefix('./')}", path=folder / str(number))
        if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
            yield replace(one, problem="has a path that leads out of the archive")
        elif opened is None:
            yield replace(one, problem="is a link or a device")
        elif is_archive(name):
            yield replace(one, problem="is an archive within an archive")
        elif number >= MAX_MEMBERS:
            yield replace(found, problem=f"has more than {MAX_MEMBERS} files")
            return
        else:
            try:
                with opened() as data:
                    left -= _copy(data, one.path, left)
                yield checked(one)
            except Unreadable as error:
                yield replace(one, problem=str(error))
                return
            except Exception as error:
                yield replace(one, problem=f"is damaged: {error}")


def _copy(source: IO[bytes], target: Path, most: int) -> int:
    """Copies all of it, and gives how many bytes that were. Unreadable where there are more than `most`."""
    with target.open("wb") as file:
        while part := source.read(2**20):
            if file.tell() + len(part) > most:
                raise Unreadable(f"unpacks to more than {MAX_RATIO} times its size, or than {MAX_FILE_BYTES} bytes")
            file.write(part)
        return file.tell()
