"""Settings of the embedded server for the machine that it runs on. Sizes are in bytes."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.core.cores import usable_cores

MB = 2**20
GB = 2**30

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 the kernel's place for it
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineResources:
    """What the server may use. `shared_memory`: the space that parallel workers share. `disk`: the size of its own."""

    memory: int
    cores: int
    shared_memory: int
    disk: int


def this_machine(folder: Path) -> MachineResources:
    """For a server in this folder. Read from the system; a limit of the container applies where it is lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            memory = min(memory, int(limit.read_text()))
    # Where shared memory is not a file system (macOS) it is taken from memory itself.
    shared_memory = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else memory
    disk = shutil.disk_usage(folder).total
    return MachineResources(memory=memory, cores=usable_cores(), shared_memory=shared_memory, disk=disk)


def settings(machine: MachineResources) -> dict[str, str]:
    """postgresql.conf for `machine`: it shares the machine with models, so it takes about an eighth of the memory.

    https://www.postgresql.org/docs/current/runtime-config-resource.html
    """
    maintenance = _between(64 * MB, machine.memory // 16, 2 * GB)
    # pgvector builds a graph in parallel inside shared memory as large as maintenance_work_mem. A container often
    # has 64 MB of it: the build would fail there, so it stays in one process.
    builders = min(machine.cores, 8) if machine.shared_memory > maintenance + 64 * MB else 0
    return {
        "shared_buffers": _megabytes(_between(128 * MB, machine.memory // 8, 2 * GB)),
        "effective_cache_size": _megabytes(_between(256 * MB, machine.memory // 2, 64 * GB)),
        "maintenance_work_mem": _megabytes(maintenance),
        "work_mem": _megabytes(_between(4 * MB, machine.memory // 512, 32 * MB)),
        "max_worker_processes": str(8 + machine.cores),
        "max_parallel_workers": str(machine.cores),
        "max_parallel_workers_per_gather": str(min(machine.cores // 2, 4)),
        "max_parallel_maintenance_workers": str(builders),
        # Between two checkpoints the log may take a tenth of the disk.
        "max_wal_size": _megabytes(_between(64 * MB, machine.disk // 10, 2 * GB)),
        "wal_compression": "on",
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %a ",
        # A log must not hold the texts of documents: neither the failing statement nor the detail that quotes rows.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_checkpoints": "off",
    }


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))


def _megabytes(size: int) -> str:
    return f"{size // MB}MB"
