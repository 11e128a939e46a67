"""Identifiers, and the types of vectors."""

import re
from typing import Literal, NewType
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

CollectionId = NewType("CollectionId", int)
CollectionName = NewType("CollectionName", str)
DocumentId = NewType("DocumentId", str)
VersionNumber = NewType("VersionNumber", int)
Fingerprint = NewType("Fingerprint", str)

Vectors = npt.NDArray[np.float32]
"""Shape [n, dimensions], each row of length 1."""

Vector = npt.NDArray[np.float32]
"""Shape [dimensions], length 1."""

Role = Literal["query", "document"]

_CONTROL = re.compile(r"[\x01-\x1f\x7f-\x9f]")
_RESOLVED = re.compile(r"(^|[/\\])\s*\.+\s*([/\\;?#]|$)|^[/\\]+$")


def changes_in_urls(document_id: str) -> bool:
    """Whether a URL with this id would be another one: clients and proxies resolve `..` (RFC 3986, 5.2.4).

    Also as some of them read it: with a backslash, escaped (even twice), or before `;`, `?` and `#`.
    """
    return bool(_CONTROL.search(document_id) or _RESOLVED.search(unquote(unquote(document_id))))
