"""When the embedded server takes writes, by the free space of its disk, and the space kept for its start."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.store import disk_space
from service.store.embedded.space_guard import READ_ONLY_FILE, SpaceGuard

MB = 2**20
RESERVE = 100 * MB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "postgres").mkdir()
    return tmp_path / "postgres"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free space."""
    monkeypatch.setattr(disk_space, "reserve_bytes", lambda folder: RESERVE)
    return lambda size: monkeypatch.setattr(disk_space, "free_bytes", lambda folder: size)


def test_writes_end_below_the_reserve_and_begin_again_well_above_it(folder: Path, free: Callable[[int], None]) -> None:
    guard, setting = SpaceGuard(folder), folder / READ_ONLY_FILE
    free(1000 * MB)
    guard.prepare()
    changed = []
    for size in (1000, 101, 99, 0, 99, 101, 124, 126, 1000, 50):
        free(size * MB)
        changed.append(guard.update())
        assert guard.low == setting.exists()
    assert changed == [False, False, True, False, False, False, False, True, False, True]
    assert setting.read_text() == "default_transaction_read_only = on\n"


def test_the_ballast_is_kept_while_there_is_room_and_released_for_a_start_without_any(
    folder: Path, free: Callable[[int], None]
) -> None:
    guard, ballast = SpaceGuard(folder), folder.with_name("postgres.ballast")
    free(RESERVE + 40 * MB)
    guard.prepare()
    assert not ballast.exists(), "it would take what is kept for writing"
    free(1000 * MB)
    guard.update()
    assert ballast.stat().st_size == 32 * MB
    free(40 * MB)
    guard.prepare()
    assert ballast.exists(), "there is room for a start"
    free(0)
    guard.update()
    assert ballast.exists(), "the server runs"
    guard.prepare()
    assert not ballast.exists()
    assert guard.low


def test_a_server_that_was_low_at_its_end_starts_for_reading_only(folder: Path, free: Callable[[int], None]) -> None:
    free(0)
    SpaceGuard(folder).prepare()
    assert SpaceGuard(folder).low
    free(1000 * MB)
    SpaceGuard(folder).prepare()
    assert not SpaceGuard(folder).low


def test_the_numbers_are_those_of_the_disk_also_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "yet"
    assert 32 * MB <= disk_space.reserve_bytes(missing) <= 1024 * MB
    assert disk_space.free_bytes(missing) > 0
