"""API keys in PostgreSQL."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from service.core.access import ApiKey
from service.core.errors import Conflict, NotFound
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, Connection, retrying

SQL = sql_files.load("api_keys")


class PostgresApiKeys(Adapter):
    """Adapter of `ports.ApiKeys`."""

    async def all(self) -> tuple[ApiKey, ...]:
        keys = await self._pool.fetch_objects(ApiKey, SQL.all)
        return tuple(dataclasses.replace(key, collections=tuple(key.collections)) for key in keys)

    async def create(self, key: ApiKey, actor: str) -> None:
        values = dataclasses.asdict(key)
        values |= {"collections": list(key.collections), "filter": None if key.filter is None else Jsonb(key.filter)}
        details = {one: getattr(key, one) for one in ("role", "collections", "rate", "expires_at", "filter")}
        async with self._pool.transaction() as connection:
            if await _living(connection, key.name, key.created_at) is not None:
                raise Conflict(f"there is a key named {key.name} already: rotate or revoke it, or choose another name")
            await connection.execute(SQL.insert, values)
            await _record(connection, key.created_at, actor, "created", key.name, details)

    async def end(
        self, name: str, now: datetime, actor: str, *, successor: bytes | None = None, overlap: timedelta = timedelta()
    ) -> None:
        details = {} if successor is None else {"overlap_seconds": overlap.total_seconds()}
        values = {"name": name, "successor": successor, "now": now, "end": now + overlap}
        async with self._pool.transaction() as connection:
            if (present := await _living(connection, name, now)) is None:
                raise NotFound(f"there is no living key named {name}")
            if successor is not None:
                await connection.execute(SQL.renew, {**values, "present": present})
            await connection.execute(SQL.end, values)
            await _record(connection, now, actor, "rotated" if successor else "revoked", name, details)

    async def record_use(self, requests: Mapping[bytes, int], now: datetime) -> None:
        values = {"digests": list(requests), "requests": list(requests.values()), "now": now}
        await retrying(lambda: self._pool.execute(SQL.record_use, values))

    async def changes(self) -> tuple[Mapping[str, Any], ...]:
        return await self._pool.fetch_objects(dict, SQL.changes)


async def _living(connection: Connection, name: str, now: datetime) -> bytes | None:
    """The digest of the newest living secret of this name. Other changes wait for the caller's transaction."""
    await connection.execute(SQL.lock)
    row = await connection.fetch_one(SQL.living, {"name": name, "now": now})
    return None if row is None else row[0]


async def _record(connection: Connection, now: datetime, actor: str, action: str, name: str, details: Any) -> None:
    values = {"now": now, "actor": actor, "action": action, "name": name, "details": Jsonb(details)}
    await connection.execute(SQL.record_change, values)
