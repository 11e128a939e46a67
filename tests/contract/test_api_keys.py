"""The contract of the port `ApiKeys`, for the fake and for PostgreSQL."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from service.core.access import ApiKey
from service.core.errors import Conflict, NotFound
from tests.world import NOW, Adapters, later

HOUR = timedelta(hours=1)


def key(name: str = "ci", digest: bytes = b"1", **fields: Any) -> ApiKey:
    return ApiKey(name=name, digest=digest, role="read", **{"created_at": NOW, **fields})


async def test_a_key_is_read_back_as_it_was_created(store: Adapters) -> None:
    made = key(collections=("papers", "logs-*"), filter={"tenant": "a"}, rate="50/s", expires_at=later(60))
    await store.api_keys.create(made, "somebody")
    await store.api_keys.create(key("another", b"2"), "somebody")
    assert await store.api_keys.all() == (key("another", b"2"), made)


async def test_a_name_is_free_again_when_its_key_has_ended(store: Adapters) -> None:
    await store.api_keys.create(key(expires_at=later(60)), "x")
    with pytest.raises(Conflict):
        await store.api_keys.create(key(digest=b"2", created_at=later(59)), "x")
    await store.api_keys.create(key(digest=b"3", created_at=later(60)), "x")
    assert [one.digest for one in await store.api_keys.all()] == [b"3", b"1"]


async def test_one_of_two_that_take_a_name_at_once_gets_it(store: Adapters) -> None:
    made = [store.api_keys.create(key(digest=digest), "x") for digest in (b"1", b"2")]
    outcomes = await asyncio.gather(*made, return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == ["Conflict", "NoneType"]


async def test_a_rotated_key_has_two_secrets_for_the_overlap(store: Adapters) -> None:
    await store.api_keys.create(key(expires_at=NOW + timedelta(days=90), rate="9/h"), "x")
    await store.api_keys.record_use({b"1": 3}, later(5))
    await store.api_keys.end("ci", later(10), "x", successor=b"2", overlap=HOUR)
    new, former = await store.api_keys.all()
    assert (former.expires_at, former.requests, former.last_used_at) == (later(10) + HOUR, 3, later(5))
    assert (new.expires_at, new.requests, new.last_used_at) == (later(10) + timedelta(days=90), 0, None)
    assert (new.name, new.role, new.rate) == (former.name, former.role, former.rate)
    await store.api_keys.end("ci", later(20), "x", successor=b"3", overlap=timedelta(0))
    living = [one.digest for one in await store.api_keys.all() if one.living(later(20))]
    assert living == [b"3"]


async def test_revoking_ends_every_secret(store: Adapters) -> None:
    await store.api_keys.create(key(), "x")
    await store.api_keys.create(key("other", b"9"), "x")
    await store.api_keys.end("ci", later(1), "x", successor=b"2", overlap=HOUR)
    await store.api_keys.end("ci", later(2), "x")
    assert [one.digest for one in await store.api_keys.all() if one.living(later(2))] == [b"9"]


@pytest.mark.parametrize("ended", [False, True])
async def test_what_does_not_live_can_be_neither_rotated_nor_revoked(store: Adapters, ended: bool) -> None:
    if ended:
        await store.api_keys.create(key(expires_at=later(1)), "x")
    with pytest.raises(NotFound):
        await store.api_keys.end("ci", later(1), "x", successor=b"2", overlap=HOUR)
    with pytest.raises(NotFound):
        await store.api_keys.end("ci", later(1), "x")


async def test_the_use_of_all_processes_adds_up(store: Adapters) -> None:
    await store.api_keys.create(key(), "x")
    await asyncio.gather(*(store.api_keys.record_use({b"1": count}, later(count)) for count in range(1, 9)))
    (found,) = await store.api_keys.all()
    assert (found.requests, found.last_used_at) == (36, later(8))


async def test_every_change_is_recorded_with_who_made_it(store: Adapters) -> None:
    await store.api_keys.create(key(filter={"tenant": "a"}), "alice")
    await store.api_keys.end("ci", later(1), "bob", successor=b"2", overlap=HOUR)
    with pytest.raises(NotFound):
        await store.api_keys.end("nobody", later(2), "eve")
    await store.api_keys.end("ci", later(3), "carol")
    changes = await store.api_keys.changes()
    assert [(one["actor"], one["action"], one["name"]) for one in changes] == [
        ("carol", "revoked", "ci"),
        ("bob", "rotated", "ci"),
        ("alice", "created", "ci"),
    ]
    assert changes[-1]["details"]["filter"] == {"tenant": "a"}
    assert "digest" not in str(changes)
