"""One service for all attacks: it has to survive them one after the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.harness import calm_service
from tests.faults.machine import Machine


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder: Path = tmp_path_factory.mktemp("abuse") / "data"
    with calm_service(folder) as machine:
        yield machine
