"""`azimuth plan`: how many machines a number of chunks and searches takes, and where this product ends."""

import math
from typing import Annotated, Literal

import typer

from service.cli import capacity, shell
from service.core.collections import INDEXED_STORAGES, Storage

_DEFAULT_LOAD, _DEFAULT_MACHINE = capacity.Load(chunks=0, qps=0), capacity.Machine()


@shell.answering
def plan(
    chunks: Annotated[float, typer.Option(min=1, max=1e12, help="Passages in all: 1e8.")],
    qps: Annotated[float, typer.Option(min=0, max=1e7, help="Hybrid searches a second.")] = 10.0,
    dimensions: Annotated[int, typer.Option(min=1, max=16_000)] = _DEFAULT_LOAD.dimensions,
    storage: Annotated[Storage, typer.Option(help="How vectors are kept.")] = _DEFAULT_LOAD.storage,
    kind: Annotated[Literal["hnsw", "ivfflat"], typer.Option(help="Of index.")] = "hnsw",
    chunks_per_document: Annotated[float, typer.Option(min=1)] = _DEFAULT_LOAD.chunks_per_document,
    characters: Annotated[float, typer.Option(min=1, help="Of a passage.")] = _DEFAULT_LOAD.characters,
    cores: Annotated[int, typer.Option(min=1, help="Of one machine.")] = _DEFAULT_MACHINE.cores,
    memory_gb: Annotated[float, typer.Option(min=1, help="Of one machine.")] = _DEFAULT_MACHINE.memory_gb,
    price: Annotated[float, typer.Option(min=0, help="Of one machine and month.")] = _DEFAULT_MACHINE.price,
    passages_per_core: Annotated[
        float, typer.Option(min=0.01, help="Encoded a second by a core; a GPU counts as the cores of its machine.")
    ] = _DEFAULT_MACHINE.passages_per_core,
    days: Annotated[float, typer.Option(min=0.01, help="In which everything is to be encoded.")] = 7.0,
) -> shell.Answer:
    """Plan machines, memory and disk. Nothing is contacted; docs/scaling.md has the model and its sources."""
    amounts = (chunks, qps, chunks_per_document, characters, memory_gb, price, passages_per_core, days)
    if not all(map(math.isfinite, amounts)):
        shell.fail("every amount must be a finite number")
    if storage not in INDEXED_STORAGES[kind]:
        shell.fail(f"{kind} indexes {' or '.join(INDEXED_STORAGES[kind])}, not {storage}")
    load = capacity.Load(
        chunks=chunks,
        qps=qps,
        dimensions=dimensions,
        storage=storage,
        kind=kind,
        chunks_per_document=chunks_per_document,
        characters=characters,
    )
    machine = capacity.Machine(cores=cores, memory_gb=memory_gb, price=price, passages_per_core=passages_per_core)
    found = capacity.plan(load, machine, days)
    rows = {f"disk: {name}": f"{size / 1e9:,.1f} GB" for name, size in found["disk_bytes"].items()}
    rows |= {
        "memory: databases, together": f"{found['database_memory_bytes'] / 1e9:,.1f} GB",
        "hybrid search, median": f"{found['latency_ms']} ms",
        "building the index": f"{found['index_build_hours']:,.2f} h",
        "API processes": f"{found['api_processes']:,}",
    }
    rows |= {f"machines: {name}": f"{count:,}" for name, count in found["machines"].items()}
    rows["price of a month"] = f"{found['price']:,.0f}"
    for end in found["ends"]:
        shell.print_err(end)
    return shell.Answer(found, shell.plain_table("part", "amount", right=(1,), rows=rows.items()))
