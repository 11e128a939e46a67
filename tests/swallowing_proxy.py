"""A network that swallows packets: a TCP proxy before a server, which stops forwarding and breaks nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote


class SwallowingProxy:
    """`url` leads through it. `open` forwards; what was read while it is closed is lost for ever."""

    def __init__(self, url: str) -> None:
        self._socket = unquote(url.partition("host=")[2]) + "/.s.PGSQL.5432"
        self._database = url.partition("@/")[2].partition("?")[0]
        self.open = True
        self.port = 0
        self.forwarding: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{self._database}"

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions of one connection; a connection that has lost something never works again."""
        swallowed = not self.open

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            nonlocal swallowed
            while data := await source.read(65_536):
                swallowed = swallowed or not self.open
                if not swallowed:
                    target.write(data)
            if not swallowed:
                target.close()

        task = asyncio.current_task()
        assert task is not None
        self.forwarding.add(task)
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        try:
            await asyncio.gather(pump(reader, to_server), pump(from_server, writer))
        except (OSError, asyncio.CancelledError):
            pass  # either end is gone, or the test is over
        finally:
            writer.close()
            to_server.close()


@asynccontextmanager
async def swallowing_proxy(url: str) -> AsyncIterator[SwallowingProxy]:
    proxy = SwallowingProxy(url)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in proxy.forwarding:
            task.cancel()
        await asyncio.gather(*proxy.forwarding)
