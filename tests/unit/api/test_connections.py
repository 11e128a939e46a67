"""Slow and idle clients, over real sockets: they end, and nobody else waits for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service.api.content_coding import unpacked_body
from service.api.dependencies import RequestLimits
from service.api.http_protocol import RESERVE, HttpProtocol
from tests.programs import unused_port

pytestmark = pytest.mark.slow  # time limits are waited for

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
OTHER = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
LONG = 30.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Place:
    """A server with few connections; requests to `/held` are under way until `held` is set."""

    def __init__(self) -> None:
        self.port = unused_port()
        self.held = asyncio.Event()
        self.opened = AsyncExitStack()

    async def open(self, data: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.push_async_callback(_close, writer)
        writer.write(data)
        await asyncio.sleep(0.01)
        return reader, writer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def place(body_seconds: float = LONG, keep_alive: int = 30, **limits: Any) -> AsyncIterator[Place]:
    here = Place()

    async def answer(request: Request) -> Response:
        read = sum([len(part) async for part in unpacked_body(request)])
        if request.url.path == "/held":
            await here.held.wait()
        return PlainTextResponse("x" * 50_000_000 if request.url.path == "/large" else str(read))

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    app.state.service = SimpleNamespace(limits=RequestLimits(body_seconds=body_seconds))
    protocol = HttpProtocol.limited(**{"max_connections": 5, "headers_seconds": LONG, **limits})
    config = uvicorn.Config(
        app,
        port=here.port,
        http=protocol,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment]
    serving = asyncio.create_task(server.serve())
    async with here.opened:
        while not server.started:
            await asyncio.sleep(0.01)
        yield here
        here.held.set()
    server.should_exit = True
    await serving


async def status(streams: Streams) -> int:
    async with asyncio.timeout(LONG):
        return int((await streams[0].readline() or b"- 0").split()[1])


async def ended(*reads: Awaitable[bytes]) -> None:
    async with asyncio.timeout(LONG):
        for read in reads:
            with suppress(ConnectionError):
                await read


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: a\r\n", b"\r\n"])
async def test_headers_that_do_not_come_end_the_connection(sent: bytes) -> None:
    async with place(headers_seconds=0.2) as here:
        slow, again = await here.open(sent), await here.open(LIVEZ)
        assert await status(again) == 200
        again[1].write(b"GET /livez HTTP/1.1\r\nHost")
        await ended(slow[0].read(), again[0].read())


async def test_headers_that_drip_end_all_the_same() -> None:
    async with place(headers_seconds=0.3) as here:
        reader, writer = await here.open(b"GET / HTTP/1.1\r\n")
        ending = asyncio.create_task(ended(reader.read()))
        while not ending.done():
            writer.write(b"X-A: b\r\n")
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("drip", [b"", b"x"])
async def test_a_body_that_does_not_come_or_drips_is_refused(drip: bytes) -> None:
    async with place(body_seconds=0.3) as here:
        reader, writer = await here.open(POST)
        answering = asyncio.create_task(status((reader, writer)))
        while not answering.done():
            writer.write(drip)
            await asyncio.sleep(0.05)
        assert answering.result() == 408
        await ended(reader.read())


async def test_an_idle_connection_ends() -> None:
    async with place(keep_alive=1) as here:
        reader, writer = await here.open(LIVEZ)
        assert await status((reader, writer)) == 200
        await ended(reader.read())


async def test_who_does_not_read_an_answer_is_left() -> None:
    async with place(read_seconds=0.2) as here:
        reader, _ = await here.open(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(50_000_000)


async def test_idle_connections_give_way_those_first_that_never_asked() -> None:
    async with place() as here:
        used = await here.open(OTHER)
        assert await status(used) == 200
        for _ in range(50):
            await here.open(b"GET / HT")
        for _ in range(3):
            assert await status(await here.open(OTHER)) == 200
        used[1].write(LIVEZ)
        assert b"200" in (await used[0].readuntil(b"HTTP/1.1 200"))


async def test_where_all_are_busy_health_is_answered_and_others_are_told_to_come_back() -> None:
    async with place() as here:
        busy = [await here.open(OTHER.replace(b"/ ", b"/held ")) for _ in range(5)]
        refused = await here.open(OTHER)
        assert await status(refused) == 503
        assert b"retry-after: 1" in (await refused[0].read()).lower()
        for _ in range(3):
            assert await status(await here.open(LIVEZ)) == 200
        for _ in range(RESERVE + 20):
            await here.open(b"GET / HT")
        assert await status(await here.open(LIVEZ)) == 200
        here.held.set()
        assert [await status(one) for one in busy] == [200] * 5


async def test_a_thousand_idle_connections_keep_nobody_out() -> None:
    async with place(max_connections=300) as here:
        await asyncio.gather(*[here.open() for _ in range(1_000)])
        assert await status(await here.open(LIVEZ)) == 200
        assert await status(await here.open(OTHER)) == 200
