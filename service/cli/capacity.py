"""What a number of chunks and searches takes: bytes by the layout of pages, time by unit costs that were measured.

docs/scaling.md has the source of each unit cost, and what the model says beside what was measured. Bytes are those of
PostgreSQL 18 and pgvector 0.8 (`hnsw.h`: element and neighbour tuples share a page where both fit).
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from service.core.collections import IndexKind, Storage

PAGE = 8192
_HEAP_PAGE, _HNSW_PAGE = PAGE - 24, PAGE - 24 - 8
_ITEM, _ITEM_HEADER = 4, 8
"""Bytes of a page for the place of a tuple in it, and of an index tuple before its vector."""
_ROW_BYTES, _KEY_BYTES = 88, 56
"""Of a chunk in the table beside vector and id of the document, and in the primary key beside the id."""
_DOCUMENT_BYTES, _TEXT_BYTES = 480, 1.05
"""Of a document with its change, keys and indexes, and for each byte of its text."""
_LEXICAL_SHARE = 0.4
"""Of the text; 0.2 for long common words, 0.4 for abstracts."""
_LOG_BYTES = 2**29

_INDEX_BITS: dict[Storage, int] = {"halfvec": 16, "vector": 32, "binary": 1, "scalar": 3}
_TABLE_BITS: dict[Storage, int] = {"halfvec": 16, "vector": 32, "binary": 16, "scalar": 16}

_SCAN_MS, _API_MS, _LOOP_MS, _STATEMENTS_MS, _LATENCY_MS = 4.6, 11.3, 5.7, 1.5, 12.5
"""Of a hybrid search: the scan of 100,000 chunks with 384 dimensions; processor time of the API, of that in the one
thread of its event loop, and of the other statements; and what one client waits for beside the scan."""
_REFERENCE_CHUNKS, _REFERENCE_DIMENSIONS = 1e5, 384
_BUILD_SECONDS, _BUILD_EXPONENT, _BUILD_CORES = 39.0, 1.29, 2
_LISTS_BUILD, _LISTS_SCAN = 0.1, 5.6
"""Of a million passages in `ivfflat` beside HNSW: processor time of the build, and a scan with the same recall."""
_BUSY_SHARE = 0.6
"""Of the cores that searches may keep busy; beyond, they wait for each other."""
_MEMORY_SHARE, _HOT_DOCUMENTS = 0.75, 0.1
"""Of a machine's memory for data, and of the documents that stay in it."""
_EXACT_BELOW = 7_500
_PROCESS_BYTES = 1.1e9
_LONG_BUILD_HOURS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What is stored and asked. `characters`: of the text of a chunk, taken as bytes. `m`: links of the index."""

    chunks: float
    qps: float
    dimensions: int = 384
    storage: Storage = "halfvec"
    chunks_per_document: float = 2.0
    characters: float = 1_000.0
    id_bytes: int = 16
    m: int = 16
    kind: IndexKind = "hnsw"


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One of the machines that can be had. `passages_per_core`: that it encodes each second; `price`: of a month."""

    cores: int = 16
    memory_gb: float = 64.0
    price: float = 400.0
    passages_per_core: float = 46.0


def vector_bytes(dimensions: int, bits: int) -> int:
    """Of a `vector`, a `halfvec`, or a `bit` string of one to three bits a dimension."""
    return 8 + math.ceil(dimensions * bits / 8)


def _aligned(size: float) -> int:
    return 8 * math.ceil(size / 8)


def _pages(count: float, size: int, page: int) -> float:
    """Bytes of so many tuples, of which a page has as many as fit whole; a larger one takes several pages."""
    tuples = page // (size + _ITEM)
    return count * PAGE / tuples if tuples else count * PAGE * math.ceil(size / page)


def table_bytes(load: Load) -> float:
    """The table of vectors, without its indexes."""
    vector = vector_bytes(load.dimensions, _TABLE_BITS[load.storage])
    return _pages(load.chunks, _aligned(_ROW_BYTES + load.id_bytes + vector), _HEAP_PAGE)


def index_bytes(load: Load) -> float:
    """The HNSW graph or the lists; 0 where there is none, because an exact scan is as fast."""
    if load.chunks <= _EXACT_BELOW:
        return 0.0
    if load.kind == "ivfflat":
        vector = vector_bytes(load.dimensions, _INDEX_BITS[load.storage])
        return _pages(load.chunks, _aligned(_ITEM_HEADER + vector), _HNSW_PAGE)
    element = _aligned(72 + vector_bytes(load.dimensions, _INDEX_BITS[load.storage]))
    neighbours = _aligned(4 + 2 * load.m * 6)
    return _pages(load.chunks, element + _ITEM + neighbours, _HNSW_PAGE)


def disk_bytes(load: Load) -> dict[str, float]:
    """By what takes it, on the database; `lexical` is on every API process."""
    documents = load.chunks / load.chunks_per_document
    return {
        "vectors": table_bytes(load) + load.chunks * (_KEY_BYTES + load.id_bytes),
        "index": index_bytes(load),
        "documents": documents * (_DOCUMENT_BYTES + 3 * load.id_bytes) + load.chunks * load.characters * _TEXT_BYTES,
        "log": _LOG_BYTES,
        "lexical": load.chunks * load.characters * _LEXICAL_SHARE,
    }


def scan_ms(chunks: float, dimensions: int, kind: IndexKind = "hnsw") -> float:
    """Of the index. A graph visits nodes in proportion to the logarithm of their number (Malkov and Yashunin, 2018);
    lists are as many as each is long, the square root."""
    size = 0.5 + 0.5 * dimensions / _REFERENCE_DIMENSIONS
    if kind == "ivfflat":
        return _LISTS_SCAN * scan_ms(1e6, dimensions) * math.sqrt(chunks / 1e6)
    return _SCAN_MS * math.log(max(chunks, 10.0)) / math.log(_REFERENCE_CHUNKS) * size


def latency_ms(load: Load) -> float:
    """Median of a hybrid search without reranking, of one client, where all data are in memory."""
    return _LATENCY_MS + scan_ms(load.chunks, load.dimensions, load.kind)


def build_seconds(load: Load, cores: int = _BUILD_CORES) -> float:
    """Of the index, with the graph in memory. For lists each chunk is compared with every centre."""
    if load.kind == "ivfflat":
        graph = build_seconds(replace(load, chunks=1e6, kind="hnsw"), cores)
        return _LISTS_BUILD * graph * math.pow(load.chunks / 1e6, 1.5)
    growth: float = (load.chunks / _REFERENCE_CHUNKS) ** _BUILD_EXPONENT
    size = 0.5 + 0.5 * load.dimensions / _REFERENCE_DIMENSIONS
    return _BUILD_SECONDS * growth * size * _BUILD_CORES / cores


def plan(load: Load, machine: Machine, days: float = 7.0) -> dict[str, Any]:
    """Machines by their part, with what decides their number, their price, and where a part ends (`ends`).

    Where one database does not hold all in memory, the documents are split over several services, and each search asks
    all of them. `days`: in which all of it is to be encoded.
    """
    disk, memory = disk_bytes(load), machine.memory_gb * 1e9 * _MEMORY_SHARE
    rescored = disk["vectors"] if load.storage in ("binary", "scalar") else 0.0
    in_memory = disk["index"] + rescored + _HOT_DOCUMENTS * disk["documents"]
    services = max(1, math.ceil(in_memory / memory))
    one = replace(load, chunks=load.chunks / services)
    usable = 1000 * _BUSY_SHARE * machine.cores
    database_ms = _STATEMENTS_MS + scan_ms(one.chunks, load.dimensions, load.kind)
    copies = max(1, math.ceil(load.qps * database_ms / usable))
    processes = max(1, math.ceil(load.qps * _LOOP_MS / (1000 * _BUSY_SHARE)))
    apis = max(math.ceil(load.qps * _API_MS / usable), math.ceil(processes * _PROCESS_BYTES / memory))
    workers = max(1, math.ceil(load.chunks / (machine.passages_per_core * machine.cores * days * 86_400)))
    build_hours = build_seconds(one, machine.cores) / 3600
    ends = []
    if services > 1:
        ends.append(
            f"one database on such a machine holds {load.chunks * memory / in_memory:,.0f} chunks in memory: take more "
            f"memory, the storage scalar or fewer dimensions, or split the documents over {services} services"
        )
    if disk["lexical"] / services + _PROCESS_BYTES > memory:
        ends.append("the lexical index of an API machine exceeds its memory: words are then read from its disk")
    if build_hours > _LONG_BUILD_HOURS:
        ends.append(f"building an index takes {build_hours:.0f} hours: split the documents over several collections")
    machines = {"databases": services, "replicas": services * (copies - 1), "apis": services * apis, "workers": workers}
    return {
        "load": asdict(load),
        "machine": asdict(machine),
        "disk_bytes": {name: round(size) for name, size in disk.items()},
        "database_memory_bytes": round(in_memory),
        "latency_ms": round(latency_ms(one), 1),
        "index_build_hours": round(build_hours, 2),
        "api_processes": services * processes,
        "machines": {**machines, "all": sum(machines.values())},
        "price": round(sum(machines.values()) * machine.price, 2),
        "ends": ends,
    }
