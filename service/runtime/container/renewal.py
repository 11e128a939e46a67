"""The API over the database as it is now: the application is made anew when the database was restored.

Whatever a process remembers of the database goes with the application that remembers it, so that no cache has to be
told. Models stay in memory, and requests come in all the time.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from service.core.periodic import in_background, repeat_every
from service.runtime.container.api import Loaded, open_api, open_loaded
from service.runtime.container.background import RESTORE_SECONDS, report_restore
from service.runtime.settings import Settings
from service.store.postgres.restores import RestoreWatch
from service.store.postgres.schema import migrations


class RenewedApp:
    """Passes requests on to the application that was opened last."""

    def __init__(self, settings: Settings, url: str, loaded: Loaded) -> None:
        self._settings, self._url, self._loaded = settings, url, loaded
        self._stack = AsyncExitStack()
        self._watch = RestoreWatch()
        self._app: FastAPI

    @property
    def state(self) -> State:
        return self._app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await self._app(scope, receive, send)
        while True:  # the applications were started when they were opened
            message: Any = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return None

    async def open(self) -> None:
        """Put a new application in the place of the former, which is closed: what it has begun ends with 503."""
        async with AsyncExitStack() as stack:
            app = await stack.enter_async_context(open_api(self._settings, self._url, self._loaded))
            await stack.enter_async_context(app.router.lifespan_context(app))
            stack.callback(app.state.service.ingest.stop_waiting)
            self._app, self._watch = app, RestoreWatch()
            former, self._stack = self._stack, stack.pop_all()
        await former.aclose()

    async def renew_if_restored(self) -> None:
        if await self._watch.restored(self._app.state.pool):
            report_restore()
            await migrations.apply(self._url)
            await self.open()

    async def close(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def open_renewed_api(settings: Settings, url: str) -> AsyncIterator[RenewedApp]:
    async with open_loaded(settings) as loaded, AsyncExitStack() as stack:
        app = RenewedApp(settings, url, loaded)
        await app.open()
        stack.push_async_callback(app.close)
        await stack.enter_async_context(in_background(repeat_every("database", RESTORE_SECONDS, app.renew_if_restored)))
        yield app
