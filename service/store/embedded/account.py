"""The user that the embedded server runs as, and what that user must be able to reach."""

import logging
import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from service.core.errors import Misconfigured

_logger = logging.getLogger(__name__)

SYSTEM_USER = "azimuth"
"""PostgreSQL refuses to run as root. Root's server runs as this user, which is created where it does not exist."""


def server_account(folder: Path) -> pwd.struct_passwd | None:
    """The user that the server runs as, where it is not the current one: root's server runs as the folder's owner."""
    owner = folder.stat().st_uid if folder.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise Misconfigured(f"{folder} belongs to another user (id {owner}): run as that user, or as root.")
        return None
    if owner:
        return pwd.getpwuid(owner)
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 a fixed command
    except (OSError, subprocess.CalledProcessError) as error:
        raise Misconfigured(
            f"PostgreSQL does not run as root, and the user {SYSTEM_USER} for it could not be made: "
            "make it, or run as an ordinary user."
        ) from error
    return pwd.getpwnam(SYSTEM_USER)


def grant_traversal(account: pwd.struct_passwd, folder: Path, binaries: Path) -> None:
    """Let root's server reach its data and its binaries: parent folders become traversable, not readable."""
    for path in (*folder.parents, *binaries.resolve().parents, binaries.resolve()):
        status = path.stat()
        if status.st_uid != account.pw_uid and not status.st_mode & stat.S_IXOTH:
            _logger.warning("letting other users pass through %s (chmod o+x): PostgreSQL does not run as root", path)
            path.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
    if not (binaries / "postgres").stat().st_mode & stat.S_IXOTH:
        for path in binaries.parent.rglob("*"):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                # Others get the owner's permissions, except writing.
                path.chmod(mode | (mode >> 6 & 0o5))
