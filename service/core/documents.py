"""Documents as sent by clients and as committed, and their chunks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from service.core.ids import DocumentId
from service.core.images import Image

WriteStatus = Literal["created", "updated", "unchanged"]
IfExists = Literal["replace", "skip", "fail"]
"""What becomes of a document whose id is there already: `skip` leaves it as it is, `fail` refuses the new one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document as a client sends it. `vector`: for versions whose embedder is `external`; not part of the content.

    `image`: at first where it comes from (`core/images.py`), then what was read.
    """

    id: DocumentId
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: tuple[float, ...] | None = None
    image: Image | str | None = None

    @property
    def content_hash(self) -> bytes:
        """Where it changes, the vectors and the lexical entry are made again."""
        image = self.image.digest if isinstance(self.image, Image) else b""
        text = f"{len(self.title)}:{self.title}{self.text}".encode()
        return hashlib.blake2b(text, digest_size=16, key=image).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDocument:
    """A document as committed.

    `revision` grows with every change, also through deletion and re-creation; `content_revision` is the revision
    at which title, text or image last changed: what vectors and lexical entries are made from and checked against.
    `image`: the digest of its file.
    """

    id: DocumentId
    title: str
    text: str
    metadata: Mapping[str, Any]
    revision: int
    content_revision: int
    created_at: datetime
    updated_at: datetime
    image: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The committed outcome of writing one document."""

    id: DocumentId
    status: WriteStatus
    revision: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A passage: `text[start:end]` of its document, in code points. The embedder reads its `text`, or its `image`."""

    number: int
    start: int
    end: int
    text: str
    tokens: int
    """Length in tokens of the embedder, special tokens and prompt included."""
    image: bytes | None = None
    truncated: bool = False
    """True where one indivisible piece is longer than the embedder takes; such chunks are counted and reported."""
