"""Where the next page of a listing begins, as a token that clients only send back."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from service.core.errors import Invalid

_CHECKSUM_BYTES = 6

T = TypeVar("T")


def encode_cursor(listing: str, last: str) -> str:
    """The token for what follows `last`. Its checksum detects altered and misplaced tokens; it keeps no secret.

    `listing`: the name of the collection, with what is listed where that is not its documents; at most 64 bytes count.
    """
    after = last.encode()
    return base64.urlsafe_b64encode(_checksum(listing, after) + after).rstrip(b"=").decode()


def decode_cursor(listing: str, token: str | None) -> str | None:
    """The last entry of the page before; None without a token. Invalid where it was not made for this listing."""
    if token is None:
        return None
    try:
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        checksum, after = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
        if checksum == _checksum(listing, after):
            return after.decode()
    except (binascii.Error, UnicodeError):
        pass
    raise Invalid.at("cursor", "is not a cursor of this listing; start again without one")


def split_page(listing: str, rows: Sequence[T], limit: int, key: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """A page of `limit` rows, and the cursor of the next one if `rows` has more: one more than `limit` is enough."""
    page = rows[:limit]
    return page, encode_cursor(listing, key(page[-1])) if len(rows) > limit else None


def _checksum(listing: str, after: bytes) -> bytes:
    return hashlib.blake2b(after, digest_size=_CHECKSUM_BYTES, key=listing.encode()[:64]).digest()
