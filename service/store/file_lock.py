"""An exclusive lock among all processes of a machine."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class FileLock:
    """An flock, which the kernel releases when the process dies, however it dies. Local file systems only.

    The `filelock` package has no check for a lock file that was removed while the lock was held.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock or keep it, without waiting. A lock whose file was removed meanwhile is lost."""
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
