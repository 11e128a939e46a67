"""The space of a search is read once a second, and what nobody searches any more is not remembered."""

import time
from typing import Any

import pytest

from service.core.collections import CollectionSettings
from service.core.ids import CollectionName
from service.core.versions import EmbedderIdentity
from service.spaces.resolver import CACHE_SECONDS, SpaceResolver
from tests.fakes import FakeAdapters
from tests.world import NOW

IDENTITY = EmbedderIdentity(parts={"weights": "test"}, dimensions=4, max_tokens=256)


async def test_spaces_that_expired_leave_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    adapters: Any = FakeAdapters()
    resolver = SpaceResolver(adapters.collections, adapters.versions)
    for number in range(50):
        name = CollectionName(f"c{number}")
        collection = await adapters.collections.create(name, CollectionSettings(), IDENTITY, {"t": (1.0,) * 4}, NOW)
        assert (await resolver.resolve(name, None)).collection.id == collection.id
        await adapters.collections.delete(collection.id)
        now += CACHE_SECONDS
    assert len(resolver._cached) == 1
