"""Room on a disk: how much is free, and how much is kept free so that what runs there goes on running."""

import shutil
from pathlib import Path

_SHARE = 20
"""The reserve is one part in so many of the disk, within the limits below."""
_LEAST, _MOST = 32 * 2**20, 2**30


def free_bytes(folder: Path) -> int:
    """What an ordinary user can still write to the disk of a folder, which need not exist yet."""
    return _usage(folder).free


def reserve_bytes(folder: Path) -> int:
    """Below so much free space nothing is written any more that can wait."""
    return min(max(_usage(folder).total // _SHARE, _LEAST), _MOST)


def has_room(folder: Path) -> bool:
    """Whether an index may grow there. It may go further than documents, whose writing must not outrun the index."""
    return free_bytes(folder) > reserve_bytes(folder) // 2


def _usage(folder: Path) -> shutil._ntuple_diskusage:
    return shutil.disk_usage(next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()))
