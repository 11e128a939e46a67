"""Programs that are no Python packages: a test that needs one says so where it is not installed."""

import shutil

import pytest

PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "chromium": "chromium"}
"""Of Debian and its children, as `.ci/run` installs them."""


def program(name: str) -> str:
    """Its path. Skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: `apt-get install {PACKAGES[name]}` where that is at hand")
    return path
