"""Where the next page of a listing begins, as a token that clients only hand back."""

import base64
import binascii
import hashlib

from service.core.errors import Invalid

_CHECK_BYTES = 6


def issue(listing: str, last: str) -> str:
    """The token for what follows `last`. Its checksum finds altered and misplaced ones; it keeps no secret.

    `listing`: the name of the collection, with what is listed where that is not its documents; at most 64 bytes count.
    """
    after = last.encode()
    return base64.urlsafe_b64encode(_checksum(listing, after) + after).rstrip(b"=").decode()


def read(listing: str, token: str) -> str:
    """What to go on after. Invalid where the token was not issued for this listing."""
    try:
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        checksum, after = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
        if checksum == _checksum(listing, after):
            return after.decode()
    except (binascii.Error, UnicodeError):
        pass
    raise Invalid.at("cursor", "not a cursor of this collection's listing; start again without one")


def _checksum(listing: str, after: bytes) -> bytes:
    return hashlib.blake2b(after, digest_size=_CHECK_BYTES, key=listing.encode()[:64]).digest()
