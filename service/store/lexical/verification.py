"""Finds damaged files of an index before Tantivy reads them.

Tantivy maps its files into memory. Who reads such a file beyond its end, because it was truncated, is killed by the
kernel (SIGBUS) with the whole process; other damage gives wrong hits in silence. Every file of a segment ends with a
footer that holds the CRC-32 of what is before it (tantivy, `src/directory/footer.rs`).
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FILES = ("fast", "fieldnorm", "idx", "pos", "store", "term")
"""Of every segment; `{opstamp}.del` besides where documents were deleted from it."""
_FOOTER_END = struct.Struct("<II")
"""The length of the footer in bytes, and a constant."""
_MAGIC = 1337
_MAX_FOOTER = 4096


@contextmanager
def panics_raised() -> Iterator[None]:
    """Raise panics of Tantivy, which are no Exception in Python, as ValueError: so it reports other damage itself."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from error


class IndexFiles:
    """The files of one directory, and the sizes of those whose checksums were right."""

    def __init__(self, path: Path, opstamp: int = 0) -> None:
        """`opstamp`: the number of a commit that the index must contain."""
        self.opstamp = opstamp
        self._path = path
        self._sizes: dict[str, int] = {}

    def check(self, *, contents: bool = False) -> None:
        """ValueError names the first file that is missing, of another size than before, or new and damaged.

        `contents`: read all files again, not only new ones.
        """
        while True:
            meta = self._meta()
            try:
                names = list(_segment_files(meta))
                self._sizes = {name: self._checked_size(name, contents=contents) for name in names}
                if int(meta["opstamp"]) < self.opstamp:
                    raise ValueError("meta.json is older than it was")
                self.opstamp = int(meta["opstamp"])
                return
            except (OSError, ValueError, LookupError, TypeError) as error:
                if self._meta() == meta:
                    raise ValueError(f"damaged: {error}") from error
            # The writer replaced these files meanwhile.

    def _meta(self) -> Any:
        try:
            return json.loads((self._path / "meta.json").read_bytes())
        except OSError as error:
            raise ValueError(f"damaged: {error}") from error

    def _checked_size(self, name: str, *, contents: bool) -> int:
        path = f"{self._path}/{name}"  # a Path takes longer to make than the file to look at
        size, known = os.stat(path).st_size, self._sizes.get(name)
        if known not in {None, size}:
            raise ValueError(f"{name} has {size} bytes, and had {known}")
        if known is None or contents:
            _check_file(Path(path), size)
        return size


def _segment_files(meta: Any) -> Iterator[str]:
    for segment in meta["segments"]:
        name = segment["segment_id"].replace("-", "")
        yield from (f"{name}.{extension}" for extension in _FILES)
        if segment["deletes"]:
            yield f"{name}.{segment['deletes']['opstamp']}.del"


def _check_file(path: Path, size: int) -> None:
    with path.open("rb") as file:
        file.seek(max(0, size - _FOOTER_END.size - _MAX_FOOTER))
        end = file.read()
        length, magic = _FOOTER_END.unpack(end[-_FOOTER_END.size :]) if len(end) >= _FOOTER_END.size else (0, 0)
        if magic != _MAGIC or not 0 < length <= len(end) - _FOOTER_END.size:
            raise ValueError(f"{path.name} is truncated or overwritten")
        footer = json.loads(end[-_FOOTER_END.size - length : -_FOOTER_END.size])
        file.seek(0)
        checksum, left = 0, size - _FOOTER_END.size - length
        while left > 0 and (block := file.read(min(left, 2**20))):
            checksum, left = zlib.crc32(block, checksum), left - len(block)
    if left or checksum != footer["crc"]:
        raise ValueError(f"{path.name} does not have its checksum")
