"""API keys, and what the client behind one may do: its role, the collections it sees, and the documents in them."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, get_args

from service.core.collections import Collection
from service.core.errors import Forbidden, Invalid
from service.core.filters import And, Filter, parse, typed

KeyRole = Literal["read", "write", "admin"]
"""Each may do what those before it may."""
ROLES: Final[tuple[KeyRole, ...]] = get_args(KeyRole)
EVERY_COLLECTION: Final = ("*",)

_PATTERN = re.compile(r"[a-z0-9_*-]{1,63}")
KEY_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_RATE = re.compile(r"([1-9]\d{0,8})/(s|m|h)")
_DURATION = re.compile(r"(\d{1,6})([smhd])|0", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What one client may do. `actor`: its name in audit trails. `collections`: names, `*` stands for any characters.

    `where`: the filter of the key; only documents that pass exist for this client. `role` None: it may only use what
    is open to everybody.
    """

    actor: str
    role: KeyRole | None
    collections: tuple[str, ...] = EVERY_COLLECTION
    where: Filter | None = None

    @property
    def whole(self) -> bool:
        """Whether all documents of all collections are visible."""
        return self.collections == EVERY_COLLECTION and self.where is None

    @property
    def tenant(self) -> str:
        """The same for keys with the same filter, and for no others; empty for keys without one."""
        return "" if self.where is None else digest_of(repr(self.where).encode()).hex()

    def sees(self, collection: str) -> bool:
        return any(fnmatchcase(collection, pattern) for pattern in self.collections)

    def within(self, collection: Collection, where: Filter | None = None) -> Filter | None:
        """The filter of the key and the client's own, read by the types of the collection's declared fields.

        Forbidden where that of the key does not fit them: then nothing says which documents are visible.
        """
        if self.where is None:
            return where
        try:
            bound = typed(self.where, collection.settings.field_types)
        except Invalid as error:
            raise Forbidden(f"the filter of this key does not fit the collection: {error.detail}") from error
        return bound if where is None else And((bound, where))


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A key as it is stored. `digest`: SHA-256 of its secret, which has 256 random bits and so needs no salt.

    A key that is rotated is two of these with one name. `expires_at` in the past: expired, revoked or replaced.
    `rate`: see `parse_rate`. `requests`: admitted so far, by all API processes.
    """

    name: str
    digest: bytes = field(repr=False)
    role: KeyRole
    collections: tuple[str, ...] = EVERY_COLLECTION
    filter: Mapping[str, Any] | None = None
    rate: str | None = None
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    requests: int = 0

    def access(self) -> Access:
        """Invalid where something of it cannot be used."""
        if not re.fullmatch(KEY_NAME, self.name):
            raise Invalid.at("name", "expected 1 to 63 letters, digits and . _ -, beginning with a letter or digit")
        if not self.collections or not all(map(_PATTERN.fullmatch, self.collections)):
            raise Invalid.at("collections", "expected names of collections, in which * stands for any characters")
        where = None if self.filter is None else parse(self.filter)
        if where == And(()):
            raise Invalid.at("filter", "an empty filter would admit every document")
        return Access(actor=f"key {self.name}", role=self.role, collections=self.collections, where=where)

    def living(self, now: datetime) -> bool:
        return self.expires_at is None or self.expires_at > now

    @property
    def administers(self) -> bool:
        """Whether it may manage keys."""
        return self.role == "admin" and self.collections == EVERY_COLLECTION and self.filter is None


def new_key(
    now: datetime,
    *,
    name: str | None = None,
    role: KeyRole = "read",
    collections: Sequence[str] = EVERY_COLLECTION,
    filter: Mapping[str, Any] | None = None,
    rate: str | None = None,
    expires: str | None = None,
) -> tuple[ApiKey, str]:
    """A key that is to be stored, and its secret, which is to be shown this once. Invalid where it cannot be used.

    `expires`: after how long, see `parse_duration`. Without a name it gets one by chance.
    """
    secret, digest = new_secret()
    lifetime = None if expires is None else parse_duration(expires, "expires")
    if lifetime == timedelta():
        raise Invalid.at("expires", "a key that ends at once is of no use")
    key = ApiKey(
        name=f"key-{secrets.token_hex(4)}" if name is None else name,
        digest=digest,
        role=role,
        collections=tuple(collections),
        filter=filter,
        rate=rate,
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
    )
    key.access()
    if rate is not None:
        parse_rate(rate)
    return key, secret


def new_secret() -> tuple[str, bytes]:
    """And its digest. The prefix is for programs that look for secrets in files."""
    secret = f"azk_{secrets.token_urlsafe(32)}"
    return secret, digest_of(secret.encode())


def digest_of(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def parse_rate(text: str) -> tuple[int, int]:
    """`50/s`, `600/m` or `1000/h`, as requests in so many seconds. Invalid otherwise."""
    if (found := _RATE.fullmatch(text)) is None:
        raise Invalid.at("rate", 'expected requests a second, minute or hour: "50/s", "600/m", "1000/h"')
    return int(found[1]), {"s": 1, "m": 60, "h": 3_600}[found[2]]


def parse_duration(text: str, field: str) -> timedelta:
    """`30s`, `15m`, `1h`, `90d` or `0`. Invalid otherwise, at `field`."""
    if (found := _DURATION.fullmatch(text)) is None:
        raise Invalid.at(field, "expected a number with a unit: 30s, 15m, 1h or 90d")
    return timedelta(**{_UNITS[found[2] or "s"]: int(found[1] or 0)})
