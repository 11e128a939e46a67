"""Where the services of the fault tests live."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """Of one service: beside the other servers of the run, so that its database does not wait for a disk."""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as path:
        yield Path(path) / "data"
