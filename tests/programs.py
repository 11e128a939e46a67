"""Programs that tests start: those that are no Python packages, and ports for those that listen."""

import os
import shutil
import socket
from contextlib import suppress
from itertools import cycle

import pytest

PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "chromium": "chromium", "openssl": "openssl"}
"""Of Debian and its children, as `.ci/run` installs them."""


def program(name: str) -> str:
    """Its path. Skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: `apt-get install {PACKAGES[name]}` where that is at hand")
    return path


# Below those that the system gives to connections (from 32768 on), and each process of tests begins at a place of its
# own: what is free now is not taken by somebody else a moment later.
_PORTS = cycle(range(10_000 + os.getpid() * 50 % 20_000, 31_000, 2))


def unused_port() -> int:
    """A port that is free, with the next one free as well (the worker's)."""
    while True:
        port = next(_PORTS)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            for each, number in ((first, port), (second, port + 1)):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, after others have ended
                each.bind(("127.0.0.1", number))
            return port
