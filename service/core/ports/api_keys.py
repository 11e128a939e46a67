from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from service.core.access import ApiKey


class ApiKeys(Protocol):
    """The API keys of this installation. Each change is recorded with who made it, in one transaction."""

    async def all(self) -> tuple[ApiKey, ...]:
        """Also those that have ended; by name, newest first."""

    async def create(self, key: ApiKey, actor: str) -> None:
        """Conflict where a living key has this name."""

    async def end(
        self, name: str, now: datetime, actor: str, *, successor: bytes | None = None, overlap: timedelta = timedelta()
    ) -> None:
        """Revoke a key with all its secrets; with the digest of a `successor`, rotate it: that one is valid for as long
        as the present one was made to be, and the present one for `overlap` more.

        NotFound where no living key has this name.
        """

    async def record_use(self, requests: Mapping[bytes, int], now: datetime) -> None:
        """Add requests that this process admitted, by digest."""

    async def changes(self) -> tuple[Mapping[str, Any], ...]:
        """The latest 1,000 changes, newest first: `at`, `actor`, `action`, `name` and `details`."""
