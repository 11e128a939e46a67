"""Settings of the embedded server for machines of every size."""

import pytest

from service.store.embedded import memory_settings
from service.store.embedded.memory_settings import GB, MB, MachineResources


@pytest.mark.parametrize(
    ("memory", "shared", "maintenance", "cache"),
    [(512 * MB, 128, 64, 256), (8 * GB, 1024, 512, 4096), (16 * GB, 2048, 1024, 8192), (512 * GB, 2048, 2048, 65536)],
)
def test_memory_is_shared_out_by_size_and_capped(memory: int, shared: int, maintenance: int, cache: int) -> None:
    settings = memory_settings.settings(MachineResources(memory=memory, cores=4, shared_memory=memory // 2))
    assert settings["shared_buffers"] == f"{shared}MB"
    assert settings["maintenance_work_mem"] == f"{maintenance}MB"
    assert settings["effective_cache_size"] == f"{cache}MB"


def test_builds_are_parallel_only_where_the_graph_fits_shared_memory() -> None:
    roomy = memory_settings.settings(MachineResources(memory=16 * GB, cores=4, shared_memory=8 * GB))
    container = memory_settings.settings(MachineResources(memory=16 * GB, cores=4, shared_memory=64 * MB))
    assert roomy["max_parallel_maintenance_workers"] == "4"
    assert container["max_parallel_maintenance_workers"] == "0"


def test_one_core_is_not_divided() -> None:
    settings = memory_settings.settings(MachineResources(memory=2 * GB, cores=1, shared_memory=2 * GB))
    assert settings["max_parallel_workers_per_gather"] == "0"
    assert settings["max_parallel_workers"] == "1"


def test_this_machine_is_seen() -> None:
    machine = memory_settings.this_machine()
    assert machine.memory > 64 * MB
    assert machine.cores >= 1
    assert machine.shared_memory >= 0
