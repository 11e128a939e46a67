"""Where the next page of a listing begins, as a token that clients only hand back."""

import base64
import binascii
import hashlib

from service.domain import CollectionName, DocumentId
from service.errors import Invalid

_CHECK_BYTES = 6


def issue(collection: CollectionName, last: DocumentId) -> str:
    """The token for what follows `last`. Its checksum finds altered and misplaced ones; it keeps no secret."""
    after = last.encode()
    return base64.urlsafe_b64encode(_checksum(collection, after) + after).rstrip(b"=").decode()


def read(collection: CollectionName, token: str) -> DocumentId:
    """The document after which to go on. Invalid where the token was not issued for this collection."""
    try:
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        checksum, after = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
        if checksum == _checksum(collection, after):
            return DocumentId(after.decode())
    except (binascii.Error, UnicodeError):
        pass
    raise Invalid.at("cursor", "not a cursor of this collection's listing; start again without one")


def _checksum(collection: CollectionName, after: bytes) -> bytes:
    return hashlib.blake2b(after, digest_size=_CHECK_BYTES, key=collection.encode()[:64]).digest()
