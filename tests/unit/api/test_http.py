"""HTTP as clients, browsers and proxies use it: compressed bodies and responses, HEAD, OPTIONS, other origins."""

import asyncio
import gzip
import io
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from types import SimpleNamespace
from unittest.mock import AsyncMock

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from service.api import content_coding
from service.api.app import create_app
from service.api.content_coding import wants_gzip
from service.api.dependencies import RequestLimits
from tests.edge import Edge, api_fixture, assert_problem, build, edge

PATH = "/v1/collections/papers/documents"
JSON, NDJSON = "application/json", "application/x-ndjson"
BODY = json.dumps({"documents": [{"id": "ä", "text": "some text"}]}, ensure_ascii=False).encode()
LINES = b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n'

api = api_fixture()


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:7]) + gzip.compress(b"") + gzip.compress(data[7:]) + b"\0" * 512


CODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "several members": ("gzip", members),
    "its old name": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare),
    "identity": ("identity", bytes),
    "identity beside": ("identity, gzip", gzip.compress),
    "a mark": ("", lambda data: b"\xef\xbb\xbf" + data),
    "a mark within": ("gzip", lambda data: gzip.compress(b"\xef\xbb\xbf" + data)),
}


@pytest.mark.parametrize(("coding", "code"), CODED.values(), ids=CODED.keys())
@pytest.mark.parametrize(("kind", "body"), [(JSON, BODY), (NDJSON, LINES)], ids=["json", "ndjson"])
@pytest.mark.parametrize("size", [1, 1_000])
async def test_bodies_are_unpacked(
    api: Edge, coding: str, code: Callable[[bytes], bytes], kind: str, body: bytes, size: int
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(coded), size):
            yield coded[at : at + size]

    coded = code(body)
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    answer = await api.client.post(PATH, content=parts(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["created"] == (1 if kind == JSON else 2)


UNREADABLE: dict[str, tuple[str, bytes, int]] = {
    "unknown": ("br", BODY, 415),
    "twice": ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415),
    "two": ("deflate,gzip", BODY, 415),
    "none": ("gzip", BODY, 400),
    "cut off": ("gzip", gzip.compress(BODY)[:-9], 400),
    "cut off in a second member": ("gzip", gzip.compress(BODY) + gzip.compress(b"x" * 99)[:20], 400),
    "followed by something else": ("gzip", gzip.compress(BODY) + b"more", 400),
    "wrong checksum": ("gzip", gzip.compress(BODY)[:-8] + b"12345678", 400),
    "of another kind": ("deflate", gzip.compress(BODY), 400),
    "UTF-16": ("", BODY.decode().encode("utf-16"), 400),
    "UTF-16 without a mark": ("", BODY.decode().encode("utf-16-le"), 400),
    "UTF-32": ("gzip", gzip.compress(BODY.decode().encode("utf-32")), 400),
}


@pytest.mark.parametrize("kind", [JSON, NDJSON])
@pytest.mark.parametrize(("coding", "body", "status"), UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_cannot_be_unpacked_is_refused(api: Edge, kind: str, coding: str, body: bytes, status: int) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    answer = await api.client.post(PATH, content=body, headers=headers)
    assert_problem(answer, status)
    assert ("gzip" in answer.headers.get("accept-encoding", "")) == (status == 415)
    assert (await api.get(PATH))["documents"] == []


@pytest.mark.parametrize("kind", [JSON, NDJSON])
async def test_a_bomb_is_refused_before_it_is_unpacked(api: Edge, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_coding, "FREE_BYTES", 2**20)
    bomb = zlib.compress(b" " * 2**24, 9)
    headers = {"Content-Type": kind, "Content-Encoding": "deflate"}
    assert_problem(await api.client.post(PATH, content=bomb, headers=headers), 413)


@pytest.mark.slow
@pytest.mark.parametrize("byte", [b"\n", b"x"])
async def test_ten_gigabytes_in_ten_megabytes_are_refused_at_once(api: Edge, byte: bytes) -> None:
    block = gzip.compress(byte * 2**26, 9)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield block

    started = time.perf_counter()
    headers = {"Content-Type": NDJSON, "Content-Encoding": "gzip"}
    assert_problem(await api.client.post(PATH, content=parts(), headers=headers), 413)
    assert time.perf_counter() - started < 10


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.booleans())
def test_any_bytes_are_a_body_or_malformed(body: bytes, coding: str, really: bool) -> None:
    async def read() -> bytes:
        sent = CODED[coding][1](body) if really else body
        parts: list[Message] = [{"type": "http.request", "body": bytes([byte]), "more_body": True} for byte in sent]
        parts.append({"type": "http.request", "body": b"", "more_body": False})
        service = SimpleNamespace(limits=RequestLimits())
        app = SimpleNamespace(state=SimpleNamespace(service=service))
        scope = {"type": "http", "headers": [(b"content-encoding", coding.encode())], "app": app}
        request = Request(scope, AsyncMock(side_effect=parts))
        return b"".join([piece async for piece in content_coding.unpacked_body(request)])

    if really:
        assert asyncio.run(read()) == body
    else:
        with suppress(HTTPException):
            asyncio.run(read())


async def test_zstd_is_unpacked_where_its_library_is(api: Edge) -> None:
    zstd = pytest.importorskip("backports.zstd")
    for body, status in ((zstd.compress(BODY), 200), (zstd.compress(BODY)[:-3], 400), (BODY, 400)):
        headers = {"Content-Type": JSON, "Content-Encoding": "zstd"}
        assert (await api.client.post(PATH, content=body, headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP, deflate, br", True),
        ("x-gzip", True),
        ("br", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("gzip;q=0.5", True),
        ("gzip;q=0.5, identity", False),
        ("identity;q=0.5, gzip", True),
        ("identity, gzip;q=0.9", False),
        (",;,", False),
        ("deflate;q=0.5, gzip;q=1.0", True),
    ],
)
def test_weights_decide_on_compression(accepted: str, wanted: bool) -> None:
    assert wants_gzip(accepted) is wanted


@pytest.mark.parametrize(
    "path", ["/openapi.json", "/metrics", "/console/console.css", "/console/swagger/swagger-ui.css"]
)
async def test_responses_are_compressed_where_asked(api: Edge, path: str) -> None:
    plain = await api.client.get(path, headers={"Accept-Encoding": "identity"})
    packed = await api.client.get(path, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert path == "/metrics" or packed.content == plain.content
    small = await api.client.get("/livez", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


READABLE = ["/", "/livez", "/readyz", "/docs", "/openapi.json", "/console/console.css", "/v1/models", "/v1/collections"]
READABLE += ["/v1/collections/papers", PATH, f"{PATH}/a", f"{PATH}/missing", "/v1/collections/papers/versions/1"]


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_head_has_the_headers_of_get(api: Edge, path: str, accepted: str) -> None:
    await api.write({"id": "a", "text": "one"})
    read, head = [await api.client.request(one, path, headers={"Accept-Encoding": accepted}) for one in ("GET", "HEAD")]
    assert (head.status_code, head.content) == (read.status_code, b"")
    differing = {"x-request-id"} | ({"content-length"} if "seconds" in read.text or not read.is_success else set())
    for name in read.headers.keys() - differing:
        assert head.headers[name] == read.headers[name]
    assert "content-length" in head.headers


def test_parameters_are_described_in_the_order_of_the_path() -> None:
    for path, operations in create_app(build()[0]).openapi()["paths"].items():
        in_path = re.findall(r"\{(\w+)\}", path)
        for operation in operations.values():
            assert [one["name"] for one in operation.get("parameters", [])][: len(in_path)] == in_path


def test_every_route_names_its_methods_and_is_asked_in_vain_for_others() -> None:
    app = create_app(build()[0])
    paths = app.openapi()["paths"]

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            for path, operations in paths.items():
                url = path.replace("{collection}", "papers").replace("{number}", "1").replace("{id}", "a")
                answer = await client.options(url)
                assert (answer.status_code, answer.content) == (204, b"")
                allowed = set(answer.headers["allow"].split(", "))
                assert {*map(str.upper, operations), "OPTIONS"} <= allowed
                assert ("HEAD" in allowed) == ("GET" in allowed)
                for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
                    refused = await client.request(method, url)
                    assert (refused.status_code, refused.headers["allow"]) == (405, answer.headers["allow"])
            assert_problem(await client.options("/nothing"), 404)

    asyncio.run(ask())


PAGE = "https://app.example.com"


async def preflight(client: httpx.AsyncClient, origin: str = PAGE) -> httpx.Response:
    asks = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization,content-type"}
    return await client.options("/v1/collections/papers", headers={"Origin": origin, **asks})


async def test_pages_of_other_origins_are_let_in_by_setting_only() -> None:
    async with edge(cors_origins=(PAGE,), api_keys=("secret",)) as api:
        answer = await preflight(api.client)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "access-control-allow-origin" not in (await preflight(api.client, "https://other.example.com")).headers
        for headers, status in (({"Authorization": "Bearer secret"}, 200), ({}, 401)):
            read = await api.client.get("/v1/collections", headers={"Origin": PAGE, **headers})
            assert (read.status_code, read.headers["access-control-allow-origin"]) == (status, PAGE)
            assert "Retry-After" in read.headers["access-control-expose-headers"]
            assert "Origin" in read.headers["vary"]
    async with edge() as api:
        assert "access-control-allow-origin" not in (await preflight(api.client)).headers


def test_a_large_body_is_unpacked_in_pieces() -> None:
    """However much one network chunk unpacks to."""
    data = io.BytesIO()
    with gzip.open(data, "wb") as file:
        file.write(b"x" * 2**22)
    pieces: Iterable[bytes] = content_coding._unpack(zlib.decompressobj(31), data.getvalue())
    sizes = list(map(len, pieces))
    assert (max(sizes), sum(sizes)) == (content_coding.PIECE_BYTES, 2**22)
