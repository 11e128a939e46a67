"""What pages of other sites try: names that they point here, requests that they send, answers that they embed."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message

from service.api.app import create_app, create_worker_app
from service.api.content_coding import CompressionMiddleware
from service.api.http_protocol import HttpProtocol
from service.api.key_ring import KeyRing
from service.api.middleware import HeadMiddleware
from service.api.web_security import FORM_TYPES, HEADERS, WebSecurityMiddleware, host_of
from service.runtime.http_server import allowed_hosts
from service.runtime.settings import Settings
from tests.edge import Edge, api_fixture, assert_problem, build, edge

api = api_fixture()

PATH = "/v1/collections/papers/documents"
OWN, PAGE = "http://t", "https://app.example.com"
LOCAL = allowed_hosts(Settings())
PUBLIC = allowed_hosts(Settings(host="0.0.0.0", allowed_hosts=("api", "*.example.com")))

LOOPBACK = ["localhost", "localhost:8000", "LocalHost.", "azimuth.localhost", "127.0.0.1", "127.9.8.7:1", "[::1]:8000"]
LOOPBACK += ["[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]:80"]
REBOUND = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "xlocalhost",
    "2130706433",
]
UNREADABLE = [
    "",
    " ",
    "localhost@evil.example",
    "evil.example#localhost",
    "localhost:",
    "[::1",
    "::1",
    "localhost, evil",
]
UNREADABLE += ["localhost/evil", "http://localhost", "local\thost", "ⓛocalhost".encode().decode("latin-1")]
ADDRESSES = ["10.2.3.4:8000", "[fd00::17]", "0.0.0.0", "169.254.169.254"]


async def status(host: str, allowed: tuple[str, ...]) -> int:
    app = create_worker_app(keys=KeyRing(), allowed_hosts=allowed, with_metrics=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
        answer = await client.get("/livez", headers={b"Host": host.encode("latin-1")})
        if not answer.is_success:
            assert_problem(answer, 421)
        return answer.status_code


@pytest.mark.parametrize("host", LOOPBACK)
async def test_loopback_is_always_a_host(host: str) -> None:
    assert await status(host, LOCAL) == await status(host, PUBLIC) == 200


@pytest.mark.parametrize("host", REBOUND + UNREADABLE)
async def test_other_names_are_not(host: str) -> None:
    assert await status(host, LOCAL) == await status(host, PUBLIC) == 421
    assert await status(host, allowed_hosts(Settings(host="0.0.0.0"))) == 200  # behind keys, as long as none is named


@pytest.mark.parametrize("host", ADDRESSES)
async def test_addresses_are_hosts_of_what_others_can_reach(host: str) -> None:
    """Health checks and scrapers use them, and no page can point an address of others here."""
    assert (await status(host, LOCAL), await status(host, PUBLIC)) == (421, 200)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api", 200),
        ("API:8000", 200),
        ("search.example.com", 200),
        ("a.b.example.com.", 200),
        ("example.com", 421),
        ("evilexample.com", 421),
        ("example.com.evil.org", 421),
        ("*.example.com", 421),
        ("api.evil.org", 421),
    ],
)
async def test_names_are_allowed_by_setting(host: str, expected: int) -> None:
    assert await status(host, PUBLIC) == expected


@pytest.mark.parametrize(("version", "expected"), [("1.0", 200), ("1.1", 421)])
async def test_without_a_host_old_health_checks_alone_are_answered(version: str, expected: int) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/livez", "query_string": b"", "headers": []}
    app = create_worker_app(keys=KeyRing(), allowed_hosts=LOCAL, with_metrics=True)
    await app({**scope, "http_version": version}, receive, send)
    assert sent[0]["status"] == expected


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.integers(0, 3))
def test_any_header_is_a_host_or_refused(text: str, times: int) -> None:
    host = host_of(Headers(raw=[(b"host", text.encode("latin-1"))] * times))
    assert (times == 1) >= bool(host)
    assert set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.:-")
    assert WebSecurityMiddleware(FastAPI(), LOCAL, ()).allows_host(host) <= bool(host)


@pytest.mark.parametrize("sent", ["https://search.example.com", "search.example.com:80", "a b", "*.*", "[::1]"])
def test_what_is_no_name_is_refused_as_a_setting(sent: str) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        Settings.model_validate({"allowed_hosts": sent})


CROSS = {
    "another origin": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://t:3000"},
    "none of its own": {"Origin": "null"},
    "another site": {"Sec-Fetch-Site": "cross-site", "Origin": OWN},
    "another host of the site": {"Sec-Fetch-Site": "same-site"},
    "an unknown relation": {"Sec-Fetch-Site": "new"},
    "a proxy's password": {"Origin": "http://evil.example", "Authorization": "Basic eDp5"},
}
SAME: dict[str, dict[str, str]] = {
    "no browser": {},
    "the console": {"Origin": OWN, "Sec-Fetch-Site": "same-origin"},
    "an old browser": {"Origin": "HTTP://T"},
    "the address bar": {"Sec-Fetch-Site": "none"},
    "a trusted page": {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"},
    "a key": {"Origin": "http://evil.example", "Authorization": "bearer x"},
    "a key of its own header": {"Origin": "http://evil.example", "X-API-Key": "x"},
}


@pytest.mark.parametrize("headers", CROSS.values(), ids=CROSS.keys())
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "text/plain"])
async def test_pages_of_other_origins_change_nothing(api: Edge, headers: dict[str, str], kind: str) -> None:
    body = gzip.compress(b'{"id": "a", "text": "x"}')
    coded = {"Content-Type": kind, "Content-Encoding": "gzip"}
    assert_problem(await api.client.post(PATH, content=body, headers=headers | coded), 403)
    assert_problem(await api.client.delete("/v1/collections/papers?confirm=papers", headers=headers), 403)
    assert (await api.client.get(PATH, headers=headers)).json()["documents"] == []


@pytest.mark.parametrize("headers", SAME.values(), ids=SAME.keys())
async def test_others_may(headers: dict[str, str]) -> None:
    async with edge(cors_origins=(PAGE,)) as api:
        answer = await api.client.put("/v1/collections/papers", json={}, headers=headers)
        assert answer.status_code == 201


def test_no_form_changes_anything() -> None:
    """On any route that can be asked to change something, also those that take no body: from an old browser."""
    app = create_app(build()[0])

    async def send() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
            for path, operations in app.openapi()["paths"].items():
                url = path.replace("{collection}", "papers").replace("{number}", "1").replace("{id}", "a")
                for method in operations.keys() - {"get"}:
                    for kind in sorted(FORM_TYPES):
                        headers = {"Content-Type": f"{kind}; charset=utf-8", "User-Agent": "Mozilla/5.0"}
                        answer = await client.request(method, url, headers=headers)
                        assert_problem(answer, 415)

    asyncio.run(send())


ANSWERS: dict[str, tuple[str, str, int]] = {
    "the console": ("GET", "/", 200),
    "a file": ("GET", "/console/console.js", 200),
    "a library": ("HEAD", "/console/swagger/swagger-ui-bundle.js", 200),
    "the reference": ("GET", "/docs", 200),
    "data": ("GET", "/v1/collections", 200),
    "metrics": ("GET", "/metrics", 200),
    "methods": ("OPTIONS", "/v1/collections", 204),
    "nothing": ("GET", "/nothing", 404),
    "a wrong method": ("DELETE", "/v1/collections", 405),
    "a wrong body": ("PUT", "/v1/collections/x", 415),
    "a fault": ("GET", "/readyz", 500),
}


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_every_answer_has_the_headers(method: str, path: str, status: int) -> None:
    async def fail() -> list[str]:
        raise RuntimeError

    async with edge(missing=fail, cors_origins=(PAGE,)) as api:
        headers = {"Content-Type": "text/plain", "Origin": PAGE}
        answer = await api.client.request(method, path, headers=headers)
        assert answer.status_code == status
        assert answer.headers.keys() >= {name.lower() for name in HEADERS} | {"cache-control"}
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (
            answer.headers["access-control-allow-origin"] == PAGE
        )  # also of a fault, which the page must be able to read
        assert "strict-transport-security" not in answer.headers


async def test_over_tls_browsers_are_told_to_stay_there() -> None:
    app = create_app(build()[0])
    for url, told in (("https://search.example.com", True), ("https://localhost", False), ("http://127.0.0.1", False)):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url) as client:
            assert ("strict-transport-security" in (await client.get("/livez")).headers) is told


def test_what_is_no_http_is_answered_with_them_as_well() -> None:
    written = bytearray()

    class Transport:
        write, close = written.extend, staticmethod(lambda: None)

    protocol: Any = object.__new__(HttpProtocol)
    protocol.transport = Transport()
    protocol.send_400_response("")
    for name, value in HEADERS.items():
        assert f"{name.lower()}: {value}\r\n".encode() in written


@pytest.mark.parametrize(
    ("closed", "paths"),
    [("docs", ["/docs", "/openapi.json", "/console/swagger/swagger-ui.css"]), ("metrics", ["/metrics"])],
)
async def test_reference_and_metrics_can_be_closed(closed: str, paths: list[str]) -> None:
    async with edge(**{closed: False}) as api:
        for path in paths:
            assert_problem(await api.client.get(path), 404)
        assert (await api.client.get("/livez")).is_success


async def test_a_worker_answers_as_the_api_does() -> None:
    for with_metrics, status in ((True, 200), (False, 404)):
        app = create_worker_app(keys=KeyRing(["secret"]), allowed_hosts=LOCAL, with_metrics=with_metrics)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            assert (await client.get("/livez")).json() == {"status": "alive"}
            assert_problem(await client.get("/metrics"), 401)
            answer = await client.get("/metrics", headers={"Authorization": "Bearer secret"})
            assert (answer.status_code, answer.headers["x-frame-options"]) == (status, "DENY")


@pytest.mark.parametrize("compressed", [False, True])
async def test_head_of_a_stream_ends_at_its_beginning(compressed: bool) -> None:
    """As soon as there is something to send; nothing else would ever be read."""
    sent, closed = 0, asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield b"x" * 10_000
                await asyncio.sleep(0)
        finally:
            closed.set()

    around = [Middleware(HeadMiddleware), *([Middleware(CompressionMiddleware)] if compressed else [])]
    app = FastAPI(middleware=around)

    @app.get("/stream")
    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(lines(), headers={"X-Kept": "yes"})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
        async with asyncio.timeout(5):
            answer = await client.head("/stream", headers={"Accept-Encoding": "gzip"})
            await closed.wait()
    assert (answer.status_code, answer.content, answer.headers["x-kept"]) == (200, b"", "yes")
    assert sent <= 2
