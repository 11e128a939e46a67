"""Settings of the embedded server for machines of every size."""

from functools import partial
from pathlib import Path

import pytest

from service.store.embedded import memory_settings
from service.store.embedded.memory_settings import GB, MB, MachineResources

machine_with = partial(MachineResources, disk=100 * GB)


@pytest.mark.parametrize(
    ("memory", "shared", "maintenance", "cache"),
    [(512 * MB, 128, 64, 256), (8 * GB, 1024, 512, 4096), (16 * GB, 2048, 1024, 8192), (512 * GB, 2048, 2048, 65536)],
)
def test_memory_is_shared_out_by_size_and_capped(memory: int, shared: int, maintenance: int, cache: int) -> None:
    settings = memory_settings.settings(machine_with(memory=memory, cores=4, shared_memory=memory // 2))
    assert settings["shared_buffers"] == f"{shared}MB"
    assert settings["maintenance_work_mem"] == f"{maintenance}MB"
    assert settings["effective_cache_size"] == f"{cache}MB"


def test_builds_are_parallel_only_where_the_graph_fits_shared_memory() -> None:
    roomy = memory_settings.settings(machine_with(memory=16 * GB, cores=4, shared_memory=8 * GB))
    container = memory_settings.settings(machine_with(memory=16 * GB, cores=4, shared_memory=64 * MB))
    assert roomy["max_parallel_maintenance_workers"] == "4"
    assert container["max_parallel_maintenance_workers"] == "0"


def test_one_core_is_not_divided() -> None:
    settings = memory_settings.settings(machine_with(memory=2 * GB, cores=1, shared_memory=2 * GB))
    assert settings["max_parallel_workers_per_gather"] == "0"
    assert settings["max_parallel_workers"] == "1"


def test_this_machine_is_seen(tmp_path: Path) -> None:
    machine = memory_settings.this_machine(tmp_path)
    assert machine.memory > 64 * MB
    assert machine.cores >= 1
    assert machine.shared_memory >= 0
    assert machine.disk > 0


@pytest.mark.parametrize(("disk", "log"), [(200 * MB, 64), (5 * GB, 512), (1000 * GB, 2048)])
def test_the_log_takes_a_share_of_the_disk(disk: int, log: int) -> None:
    machine = MachineResources(memory=GB, cores=1, shared_memory=GB, disk=disk)
    assert memory_settings.settings(machine)["max_wal_size"] == f"{log}MB"
