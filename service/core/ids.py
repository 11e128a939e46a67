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


_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f]")
_DOTS = re.compile(r"\s*\.+\s*([;?#].*)?", re.DOTALL)


def unsafe_in_url(document_id: str) -> str | None:
    """Why an id cannot be part of a URL: clients and proxies resolve `..` before they send the rest (RFC 3986, 5.2.4).

    None where it can. Also as some of them read it: with a backslash, escaped (even twice), or before `;`, `?` and `#`.
    """
    if _CONTROL.search(document_id):
        return "contains a control character, which URLs lose"
    path = document_id
    for _ in range(3):
        path = unquote(path)
    segments = [segment for segment in re.split(r"[/\\]", path) if segment]
    if not segments:
        return "consists of slashes alone, which URLs lose"
    if dots := next((segment for segment in segments if _DOTS.fullmatch(segment)), None):
        return f"has the path segment {dots!r}, which clients and proxies resolve, so its URL would be another one"
    return None
