"""API keys in memory."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from service.core.access import ApiKey
from service.core.errors import Conflict, NotFound


class FakeApiKeys:
    def __init__(self) -> None:
        self._keys: dict[bytes, ApiKey] = {}
        self._changes: list[Mapping[str, Any]] = []

    async def all(self) -> tuple[ApiKey, ...]:
        newest_first = sorted(self._keys.values(), key=lambda key: key.created_at, reverse=True)
        return tuple(sorted(newest_first, key=lambda key: key.name))

    async def create(self, key: ApiKey, actor: str) -> None:
        if self._living(key.name, key.created_at):
            raise Conflict
        self._keys[key.digest] = key
        shown = ("role", "collections", "rate", "expires_at", "filter")
        self._record(key.created_at, actor, "created", key.name, {one: getattr(key, one) for one in shown})

    async def end(
        self, name: str, now: datetime, actor: str, *, successor: bytes | None = None, overlap: timedelta = timedelta()
    ) -> None:
        if not (living := self._living(name, now)):
            raise NotFound
        for one in self._keys.values():
            if one.name == name:
                end = min(one.expires_at or now + overlap, now + overlap)
                self._keys[one.digest] = dataclasses.replace(one, expires_at=end)
        if successor is not None:
            present = max(living, key=lambda key: key.created_at)
            expires_at = None if present.expires_at is None else now + (present.expires_at - present.created_at)
            fresh: Any = {"digest": successor, "created_at": now, "expires_at": expires_at}
            self._keys[successor] = dataclasses.replace(present, **fresh, last_used_at=None, requests=0)
        details = {} if successor is None else {"overlap_seconds": overlap.total_seconds()}
        self._record(now, actor, "rotated" if successor else "revoked", name, details)

    async def record_use(self, requests: Mapping[bytes, int], now: datetime) -> None:
        for digest, count in requests.items():
            key = self._keys[digest]
            self._keys[digest] = dataclasses.replace(key, requests=key.requests + count, last_used_at=now)

    async def changes(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(reversed(self._changes))

    def _living(self, name: str, now: datetime) -> list[ApiKey]:
        return [key for key in self._keys.values() if key.name == name and key.living(now)]

    def _record(self, now: datetime, actor: str, action: str, name: str, details: Mapping[str, Any]) -> None:
        self._changes.append({"at": now, "actor": actor, "action": action, "name": name, "details": details})
