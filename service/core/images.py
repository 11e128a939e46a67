"""Images of documents and of queries: where they come from, and what is made of them.

Files of strangers are opened in a child process, of bounded time and memory: decoders of images have had holes, and a
small file can unpack to gigabytes. What models and consoles read is made there, too: the preview.
"""

import asyncio
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import blake2b
from io import BytesIO
from urllib.parse import quote

from service.core.child_process import ChildDied, ComputationTurns
from service.core.concurrency import off_loop
from service.core.errors import Invalid, raised_as
from service.core.ids import DocumentId
from service.core.portions import portions

PREVIEW_SIDE = 512
"""Pixels of the longer side of a preview, at most: the models of today read 224 to 384."""
MEMORY_BYTES, SECONDS, FETCH_SECONDS = 2**30, 20.0, 10.0
GROUP = 16
"""Images that are read in one turn of the child process, between which others get theirs."""
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """`content`: the file as it was sent; empty where the document keeps the one that it has. `preview`: WebP."""

    digest: bytes
    type: str = ""
    content: bytes = field(default=b"", repr=False)
    preview: bytes = field(default=b"", repr=False)


def image_path(document_id: DocumentId) -> str:
    """Where the image of a document is, below its collection."""
    return f"images/{quote(document_id, safe='')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageReader:
    """`hosts`: from which images may be fetched, as in an address, with its port; `*.` stands for any names before."""

    max_bytes: int = 5 * 2**20
    max_pixels: int = 40_000_000
    hosts: tuple[str, ...] = ()
    _turns: ComputationTurns = field(default_factory=ComputationTurns)

    async def read(self, source: str) -> Image:
        """A data URI or an address. Invalid says what is wrong with it."""
        read, reasons = await self.read_all({DocumentId(""): source})
        for reason in reasons.values():
            raise Invalid.at("image", reason)
        return read[DocumentId("")]

    async def read_all(
        self, sources: Mapping[DocumentId, str]
    ) -> tuple[dict[DocumentId, Image], dict[DocumentId, str]]:
        """Those that can be read, and why the others cannot. Overloaded where too many wait."""
        read, reasons = dict[DocumentId, Image](), dict[DocumentId, str]()

        @contextmanager
        def reason_noted(id_: DocumentId) -> Iterator[None]:
            try:
                yield
            except Invalid as error:
                reasons[id_] = error.detail
            except (ChildDied, MemoryError):
                reasons[id_] = "takes more time or memory than it may, or crashes its decoder"

        for group in portions(list(sources.items()), lambda _: 1, GROUP):
            contents = dict[DocumentId, bytes]()
            for id_, source in group:
                with reason_noted(id_):
                    content = await self._content(source)
                    if len(content) > self.max_bytes:
                        raise Invalid(f"is larger than {self.max_bytes} bytes")
                    contents[id_] = content
            async with self._turns.child(MEMORY_BYTES) as process:
                for id_, content in contents.items():
                    with reason_noted(id_):
                        read[id_] = await process.run(read_image, content, self.max_pixels, seconds=SECONDS)
        return read, reasons

    async def _content(self, source: str) -> bytes:
        """Of what is larger than `max_bytes` no more than shows it."""
        head, _, body = source.partition(",")
        if head.startswith("data:") and head.endswith(";base64"):
            enough = body[: 4 * (self.max_bytes // 3 + 1)]
            with raised_as(Invalid, "is no base64", ValueError):
                return await off_loop(len(enough), lambda: b64decode(enough, validate=True))
        if not source.startswith(("http://", "https://")):
            raise Invalid("expected data:image/png;base64,... or an address of http or https")
        return await self._fetched(source)

    async def _fetched(self, address: str) -> bytes:
        import httpx  # not by the child process, which has to start quickly

        content = b""
        try:
            url = httpx.URL(address)
            host = url.netloc.decode()
            if not any(fnmatchcase(host, allowed.lower()) for allowed in self.hosts):
                raise Invalid(f"images from {host} are not allowed here (AZIMUTH_IMAGE_HOSTS)")
            async with (
                asyncio.timeout(FETCH_SECONDS),
                httpx.AsyncClient(trust_env=False) as client,
                client.stream("GET", url) as response,
            ):
                if response.status_code != httpx.codes.OK:  # no redirects: they could lead to another host
                    raise Invalid(f"cannot be fetched: {host} answers {response.status_code}")
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > self.max_bytes:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Invalid(f"cannot be fetched: {error or type(error).__name__}") from error
        return content


def read_image(content: bytes, max_pixels: int) -> Image:
    """In the child process: the first picture of a file, turned as its camera says, on white. Invalid: why not."""
    try:
        from PIL import Image as Pictures
        from PIL import ImageOps
    except ImportError as error:
        raise Invalid("images need a library that is not installed: pip install 'azimuth-search[images]'") from error
    Pictures.MAX_IMAGE_PIXELS = None  # checked here, before anything is unpacked
    preview = BytesIO()
    try:
        with Pictures.open(BytesIO(content), formats=list(FORMATS)) as opened:
            if opened.width * opened.height > max_pixels:
                raise Invalid(f"has {opened.width} x {opened.height} pixels, more than {max_pixels} in all")
            kind = FORMATS[opened.format or ""]
            opened.draft("RGB", (PREVIEW_SIDE, PREVIEW_SIDE))  # a JPEG is decoded no larger than is needed
            picture = opened.convert("RGBA")
            picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            picture = ImageOps.exif_transpose(picture)
            white = Pictures.new("RGBA", picture.size, "white")
            Pictures.alpha_composite(white, picture).convert("RGB").save(preview, "WEBP", quality=95)
    except (Invalid, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever their authors did not foresee
        raise Invalid(f"is no whole image of these formats: {', '.join(FORMATS)}") from error
    digest = blake2b(content, digest_size=16).digest()
    return Image(digest=digest, type=kind, content=content, preview=preview.getvalue())
