"""The API keys as one process knows them: whose a secret is, and how many requests its rate still admits.

Every second the keys are read anew and the requests that were admitted are written: a change of a key, and its use in
other processes, count a second later.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from starlette.datastructures import Headers

from service.core.access import Access, ApiKey, digest_of, parse_rate
from service.core.errors import AzimuthError, Invalid, RateLimited
from service.core.periodic import utc_now
from service.core.ports.api_keys import ApiKeys

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
RATE_HEADERS = ("RateLimit-Policy", "RateLimit", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
"""draft-ietf-httpapi-ratelimit-headers: the two of version 10; and the three of version 6, which more clients read."""


class TokenBucket:
    """A token bucket (Turner, "New Directions in Communications", 1986): full at first, a request takes one token.

    Each process has one for a key, and takes from it what others admitted as soon as it knows: the rate holds for all
    of them together, and a burst for each.
    """

    def __init__(self, rate: str) -> None:
        self.rate = rate
        self.size, self.seconds = parse_rate(rate)
        self.tokens, self._filled_at = float(self.size), time.monotonic()

    def take(self, tokens: int = 1, *, even_if_empty: bool = False) -> bool:
        """Whether there were so many. `even_if_empty`: they are used already, and at most the whole is owed."""
        now = time.monotonic()
        refilled = self.tokens + (now - self._filled_at) * self.size / self.seconds
        self.tokens, self._filled_at = min(self.size, refilled), now
        if admitted := even_if_empty or self.tokens >= tokens:
            self.tokens = max(self.tokens - tokens, -self.size)
        return admitted

    @property
    def wait_seconds(self) -> int:
        """Until there is a token, at least 1."""
        return max(1, math.ceil((1 - self.tokens) * self.seconds / self.size))

    def headers(self) -> Mapping[str, str]:
        remaining, reset = max(0, int(self.tokens)), self.wait_seconds
        policy, state = f'"key";q={self.size};w={self.seconds}', f'"key";r={remaining};t={reset}'
        return dict(zip(RATE_HEADERS, (policy, state, str(self.size), str(remaining), str(reset)), strict=True))


class KnownKey(NamedTuple):
    """`stored` None: a key of the settings. `bucket` None: any rate."""

    access: Access
    stored: ApiKey | None = None
    bucket: TokenBucket | None = None


class KeyRing:
    """`administrators`: the keys of the settings, which may do everything. Without any key everybody may."""

    def __init__(self, administrators: Sequence[str] = (), store: ApiKeys | None = None) -> None:
        own = [digest_of(key.encode()) for key in administrators]
        self._administrators = {one: KnownKey(Access(actor=f"key {one.hex()[:8]}", role="admin")) for one in own}
        self._known: dict[bytes, KnownKey] = dict(self._administrators)
        self.configured = bool(own)
        """Whether the settings have keys, which no request can take away."""
        self.required = self.configured
        """Whether there was ever a key. One that has expired does not open the service."""
        self._refreshing = asyncio.Lock()
        self._store = store
        self._unwritten = Counter[bytes]()
        """Requests that this process admitted since it last wrote them, by digest."""
        self._counted = Counter[str]()
        """Requests by the name of the key, of all processes, as far as its bucket knows them."""

    def find(self, headers: Headers) -> KnownKey | None:
        """The living key that the request carries. By its digest: how long that takes tells nothing about any key."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            token = headers.get("api-key") or headers.get("x-api-key") or ""
        key = self._known.get(digest_of(token.strip().encode("latin-1")))
        return key if key and (key.stored is None or key.stored.living(utc_now())) else None

    def admit(self, key: KnownKey) -> None:
        """Count a request. RateLimited where the rate of the key is used up."""
        if key.bucket is not None and not key.bucket.take():
            raise RateLimited(retry_after=key.bucket.wait_seconds)
        if key.stored is not None:
            self._unwritten[key.stored.digest] += 1
            self._counted[key.stored.name] += 1

    async def refresh(self) -> None:
        """Write what was admitted here, read all keys, and take from their buckets what others admitted."""
        if self._store is not None:
            async with self._refreshing:  # what was read first must not count last
                await self._refresh(self._store)

    async def _refresh(self, store: ApiKeys) -> None:
        written, self._unwritten = self._unwritten, Counter()
        try:
            if written:
                await store.record_use(written, utc_now())
        except AzimuthError:
            self._unwritten += written
            raise
        stored = await store.all()
        known, counted = dict(self._administrators), Counter[str]()
        buckets = {one.stored.name: one.bucket for one in self._known.values() if one.stored is not None}
        for key in stored:
            counted[key.name] += key.requests + self._unwritten[key.digest]
            before, bucket = self._known.get(key.digest), buckets.get(key.name)
            try:
                if key.rate != (bucket and bucket.rate):
                    buckets[key.name] = bucket = TokenBucket(key.rate) if key.rate else None
                access = before.access if before is not None else key.access()  # it never changes
                known.setdefault(key.digest, KnownKey(access, key, bucket))
            except Invalid as error:  # of a newer program: what is not understood is refused
                log.error("a key cannot be read", extra={"key": key.name, "reason": error.detail})
        for name, bucket in buckets.items():
            if bucket is not None and name in self._counted and counted[name] > self._counted[name]:
                bucket.take(counted[name] - self._counted[name], even_if_empty=True)
        self._known, self._counted, self.required = known, counted, self.required or bool(stored)
