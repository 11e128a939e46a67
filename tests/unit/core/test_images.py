"""Where images come from, and what is made of files: bounded, on white, upright, and refused with a reason."""

import io
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from PIL import Image as Pictures

from service.core.child_process import ChildDied
from service.core.errors import Invalid
from service.core.images import ImageReader, image_path, read_image
from tests.clip import data_uri, drawn, opened


def saved(picture: Pictures.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it is so large."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(b"\0" * 9)) + part(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(40, 30), (2_000, 1_000), (5_000, 1)])
def test_a_preview_keeps_the_picture_and_is_small(kind: str, size: tuple[int, int]) -> None:
    content = saved(Pictures.new("RGB", size, "red"), kind)
    read = read_image(content, 10**8)
    preview = opened(read.preview)
    assert (read.content, read.type) == (content, f"image/{kind.lower()}")
    assert preview.size == tuple(max(1, round(side * min(1, 512 / max(size)))) for side in size)
    assert np.abs(np.asarray(preview, np.int16)[0, 0] - (255, 0, 0)).max() < 12
    assert read.digest == read_image(content, 10**8).digest != read_image(drawn("red", "circle"), 10**8).digest


def test_transparency_is_white_and_cameras_are_turned_upright() -> None:
    assert opened(read_image(saved(Pictures.new("RGBA", (8, 8)), "PNG"), 100).preview).getpixel((0, 0)) == (255,) * 3
    turned = Pictures.Exif()
    turned[0x0112] = 6
    assert opened(read_image(saved(Pictures.new("RGB", (8, 4)), "JPEG", exif=turned), 100).preview).size == (4, 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bomb(30_000, 30_000), "30000 x 30000 pixels"),
        (bomb(100, 100), "no whole image"),
        (drawn("red", "circle")[:-30], "no whole image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no whole image"),
        (saved(Pictures.new("RGB", (4, 4)), "BMP"), "no whole image"),
        (b"", "no whole image"),
    ],
    ids=range(6),
)
def test_other_files_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        read_image(content, 40_000_000)


class _Turns:
    """Runs here what a child process would, which dies of b"crash"."""

    @asynccontextmanager
    async def child(self, memory_bytes: int) -> AsyncIterator["_Turns"]:
        assert memory_bytes
        yield self

    async def run(self, work: object, content: bytes, most: int, seconds: float) -> object:
        if content == b"crash":
            raise ChildDied
        return read_image(content, most)


async def test_each_image_of_many_has_its_own_fate() -> None:
    reader = ImageReader(max_bytes=2_000, hosts=("img.example.com", "*.cdn.example:81"), _turns=_Turns())  # type: ignore[arg-type]
    sources = {
        "good": data_uri(drawn("red", "circle")),
        "crash": data_uri(b"crash"),
        "large": data_uri(b"x" * 2_001),
        "port": "https://img.example.com:8443/a.png",
        "within": "https://evil.example/?img.example.com",
        "user": "https://img.example.com@evil.example/a.png",
        "file": "file:///etc/passwd",
        "bracket": "http://[::1/",
    }
    read, reasons = await reader.read_all(sources)  # type: ignore[arg-type]
    assert list(read) == ["good"]
    assert "crashes its decoder" in reasons["crash"]  # type: ignore[index]
    assert reasons.keys() == sources.keys() - {"good"}
    assert sum("not allowed here" in one for one in reasons.values()) == 3
    with pytest.raises(Invalid, match="image: is larger"):
        await reader.read(sources["large"])


def test_the_path_of_an_image_holds_any_id() -> None:
    assert image_path("a/b c?ü") == "images/a%2Fb%20c%3F%C3%BC"  # type: ignore[arg-type]


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/red.png")
        self.end_headers()
        self.wfile.write(drawn("red", "circle") if self.path == "/red.png" else b"x" * 3_000)

    def log_message(self, *_: object) -> None: ...


async def test_images_are_fetched_from_hosts_that_are_allowed() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as site:
        Thread(target=site.serve_forever).start()
        host = f"127.0.0.1:{site.server_port}"
        reader = ImageReader(max_bytes=2_000, hosts=(host,), _turns=_Turns())  # type: ignore[arg-type]
        assert (await reader.read(f"http://{host}/red.png")).content == drawn("red", "circle")
        for path, reason in (("moved", "answers 302"), ("large", "larger than 2000")):
            with pytest.raises(Invalid, match=reason):
                await reader.read(f"http://{host}/{path}")
        with pytest.raises(Invalid, match="not allowed here"):
            await reader.read(f"http://localhost:{site.server_port}/red.png")
        site.shutdown()
    with pytest.raises(Invalid, match="cannot be fetched"):
        await reader.read(f"http://{host}/red.png")
