"""One holder among all processes of a machine."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Lock:
    """An flock: the kernel lets go of it when the process dies, however it dies. Local file systems only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def held(self) -> bool:
        """Is it ours? Takes it where it is free. A file that was removed meanwhile is no lock any more."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.release()
                return False
        with suppress(FileNotFoundError):
            if os.fstat(self._file).st_ino == self._path.stat().st_ino:
                return True
        self.release()
        return False

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
