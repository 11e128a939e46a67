"""Keeps the disk of the embedded server from filling up.

A server that cannot write its log ends, and reading with it. So it takes only reading transactions while less than the
reserve is free. Should others fill the disk to the last byte all the same, and the server end, a file that was kept for
this is removed, so that it can start again.

Nothing here needs room: the setting lies ready in a file, which is renamed to where the server reads it.
"""

import logging
from pathlib import Path

from service.store import disk_space

_logger = logging.getLogger(__name__)

READ_ONLY_FILE = "read_only.conf"
_ROOM_AGAIN = 1.25
"""Times the reserve must be free before writes are taken again, so that they are not allowed and refused in turns."""
_BALLAST_BYTES = 32 * 2**20
"""Two segments of the server's log; less where the reserve is small, too."""


class SpaceGuard:
    """The reserve on the disk of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._on, self._off = folder / READ_ONLY_FILE, folder / f"{READ_ONLY_FILE}.off"
        self._folder, self._ballast = folder, folder.with_name(f"{folder.name}.ballast")

    @property
    def low(self) -> bool:
        """Whether only reading goes on."""
        return self._on.exists()

    def prepare(self) -> None:
        """Before a start: lay the setting ready, and give the server room where there is none."""
        if self._ballast.exists() and disk_space.free_bytes(self._folder) < self._ballast.stat().st_size:
            self._ballast.unlink()
            _logger.error("the disk of %s is full: the space kept for the database's start is released", self._folder)
        if not self.low and not self._off.exists():
            self._off.write_text("default_transaction_read_only = on\n")
            self._off.chmod(0o644)
        self.update()

    def update(self) -> bool:
        """Look at the free space; True where the server has to read its settings again."""
        free, reserve = disk_space.free_bytes(self._folder), disk_space.reserve_bytes(self._folder)
        if self._off.exists() and free < reserve:
            self._off.rename(self._on)
            _logger.error("the disk is nearly full: only reading goes on", extra={"free_bytes": free})
            return True
        if free < _ROOM_AGAIN * reserve:
            return False
        size = min(_BALLAST_BYTES, reserve // 2)
        if not self._ballast.exists() and free - reserve > 2 * size:
            self._ballast.write_bytes(bytes(size))
        if not self.low:
            return False
        self._on.rename(self._off)
        _logger.warning("there is room on the disk again: writes are taken", extra={"free_bytes": free})
        return True
