"""Garbage is collected while little is alive, and at last however much is."""

import gc
import weakref
from collections.abc import Iterator

import psutil
import pytest

from service.runtime import garbage
from service.runtime.garbage import GarbageCollection


@pytest.fixture
def collection() -> Iterator[GarbageCollection]:
    before = gc.get_threshold()
    yield GarbageCollection()
    gc.set_threshold(*before)
    gc.unfreeze()


class Node:
    def __init__(self) -> None:
        self.itself = self


def old_garbage() -> "weakref.ref[Node]":
    node = Node()
    gc.collect(1)  # what survives this is old
    return weakref.ref(node)


async def test_garbage_is_collected_while_little_is_alive(collection: GarbageCollection) -> None:
    node = old_garbage()
    gc.collect(1)
    assert node() is not None
    await collection.collect()
    assert node() is None


async def test_a_large_request_delays_it_and_not_for_ever(
    collection: GarbageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = old_garbage()
    large = [object() for _ in range(collection._blocks)]
    await collection.collect()
    assert node() is not None
    monkeypatch.setattr(garbage, "_LATEST_SECONDS", 0.0)
    await collection.collect()
    assert node() is None
    assert large


async def test_what_outlived_a_collection_is_looked_through_again(
    collection: GarbageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Node()
    node = weakref.ref(kept)
    await collection.collect()
    del kept
    await collection.collect()
    assert node() is not None, "set aside, so that the next look costs little"
    monkeypatch.setattr(garbage, "_WHOLE_SECONDS", 0.0)
    await collection.collect()
    assert node() is None


def test_python_itself_looks_through_the_youngest_only(collection: GarbageCollection) -> None:
    assert gc.get_threshold()[2] > 10**9


async def test_what_was_freed_is_given_back() -> None:
    process = psutil.Process()
    blocks = [bytes(50_000) for _ in range(2_000)]  # too small for pages of their own
    top = [bytes(50_000) for _ in range(2)]
    before = process.memory_info().rss
    del blocks
    await garbage.trim()
    assert process.memory_info().rss < before - 50_000_000
    assert top
