"""The contract of the port `Audit`, for the fake and for PostgreSQL; and the entries that other ports write."""

import json
from dataclasses import asdict, replace
from typing import Any, cast

import pytest

from service.core.collections import CollectionSettings
from service.core.errors import CollectionNotFound
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.ports.audit import Audit
from service.core.versions import AuditEntry
from tests.world import NOW, World, later

ENTRY = AuditEntry(
    at=later(3),
    actor="client 127.0.0.1",
    action="promoted",
    version=VersionNumber(2),
    before=VersionNumber(1),
    note="because of the numbers: 3 % more, “quoted”",
    details={"forced": False, "checks": [{"name": "recall", "passed": None, "figures": {"recall": 0.25, "n": 200}}]},
)


async def everything(audit: Audit, collection_id: CollectionId, limit: int) -> list[AuditEntry]:
    """All entries, page by page."""
    found: list[AuditEntry] = []
    while page := await audit.page(collection_id, found[-1].number if found else None, limit):
        assert len(page) <= limit
        found.extend(page)
    return found


async def test_an_entry_is_read_back_as_it_was_written(world: World) -> None:
    await world.audit.add(world.collection.id, ENTRY)
    (read, *_) = await world.audit.page(world.collection.id, None, 10)
    assert read == replace(ENTRY, number=read.number)
    assert read.number > 0


async def test_pages_go_from_the_newest_to_the_oldest_and_are_of_one_collection(world: World) -> None:
    settings = world.collection.settings
    other = await world.collections.create(
        CollectionName("other"), settings, world.version.identity, world.version.canary, NOW
    )
    for number in range(5):
        await world.audit.add(world.collection.id, replace(ENTRY, note=f"note {number}"))
        await world.audit.add(other.id, replace(ENTRY, note=f"other {number}"))
    for limit in (1, 2, 3, 100):
        found = await everything(world.audit, world.collection.id, limit)
        assert [entry.note for entry in found] == [f"note {number}" for number in (4, 3, 2, 1, 0)] + [""]
        assert [entry.number for entry in found] == sorted((entry.number for entry in found), reverse=True)
    assert await world.audit.page(CollectionId(12345), None, 10) == ()


def as_json(settings: CollectionSettings) -> dict[str, Any]:
    """As the trail keeps them: lists, where the settings have tuples."""
    return cast(dict[str, Any], json.loads(json.dumps(asdict(settings))))


async def test_a_collection_begins_with_who_created_it(world: World) -> None:
    settings, version = world.collection.settings, world.version
    created = await world.collections.create(
        CollectionName("other"), settings, version.identity, version.canary, later(2), "key 3f9a1c2e"
    )
    (entry,) = await world.audit.page(created.id, None, 10)
    assert entry == AuditEntry(
        number=entry.number,
        at=later(2),
        actor="key 3f9a1c2e",
        action="created",
        version=VersionNumber(1),
        details={"settings": as_json(created.settings)},
    )


async def test_changed_settings_are_told_with_what_they_were(world: World) -> None:
    before = world.collection.settings
    after = replace(before, recall_target=0.99)
    changed = await world.collections.update(world.collection, after, replace(ENTRY, action="settings", details={}))
    assert changed.settings == after
    assert await world.collections.update(changed, after, replace(ENTRY, action="settings")) == changed
    await world.collections.update(changed, before)
    told, _ = await world.audit.page(world.collection.id, None, 10)
    details = {"before": as_json(before), "after": as_json(after)}
    assert told == replace(ENTRY, number=told.number, action="settings", details=details)


async def test_there_is_no_audit_of_what_is_gone(world: World) -> None:
    await world.audit.add(world.collection.id, ENTRY)
    await world.collections.delete(world.collection.id)
    assert await world.audit.page(world.collection.id, None, 10) == ()
    with pytest.raises(CollectionNotFound):
        await world.audit.add(world.collection.id, ENTRY)
