"""Programs that tests start: those that are no Python packages, and ports for those that listen."""

import shutil
import socket

import pytest

PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "chromium": "chromium", "openssl": "openssl"}
"""Of Debian and its children, as `.ci/run` installs them."""


def program(name: str) -> str:
    """Its path. Skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: `apt-get install {PACKAGES[name]}` where that is at hand")
    return path


def unused_port() -> int:
    """A port that was free a moment ago, with the next one free as well (the worker's)."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
