"""Overload is turned away at the door: before a body is read, by a limit of each route that adapts to its latency."""

import asyncio
from collections.abc import Iterable, Sequence

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.bodies import NDJSON
from service.core import metrics
from service.core.admission import Admission, AdmissionLimit
from service.core.errors import Overloaded

PACE_SECONDS = 0.01


def limited_routes(routes: Iterable[object]) -> list[APIRoute]:
    """Those that do work which a client may have to repeat: they document 429, and do more than read."""
    found = [route for route in routes if isinstance(route, APIRoute) and 429 in route.responses]
    return [route for route in found if "GET" not in (route.methods or ())]


class AdmissionMiddleware:
    """Answers 429 where no room is left for a request to one of `routes`; all others pass.

    Only the latencies of one route can be compared, so each has a limit of its own, of at most `most` requests. A
    request counts once its body is there, because how long that takes is up to its client. So is how long an NDJSON
    stream takes: streams have a limit beside, which does not adapt.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[APIRoute], most: int) -> None:
        self._app = app
        self._limits = [(route, AdmissionLimit(most), AdmissionLimit(most)) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._limit_of(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, self._paced(send))
            return
        route, limit, streams = found
        headers = Headers(scope=scope)
        streamed = headers.get("content-type", "").lower().startswith(NDJSON)
        at_once = streamed or not ("content-length" in headers or "transfer-encoding" in headers)
        admission = Admission(streams if streamed else limit, scope["state"]["access"].actor)
        scope["state"]["admission"] = admission
        status = 0

        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                admission.start()
            return message

        async def send_watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            admission.limit.require_room(admission.client)
            if at_once:
                admission.start()
        except Overloaded as error:
            scope["route"] = route
            await problems.service_error_response(scope, error)(scope, receive, send)
            return
        finally:
            metrics.ADMISSION_LIMIT.labels(route.path_format).set(limit.current)
        try:
            await self._app(scope, receive_counted, send_watched)
        finally:
            admission.finish(answered=200 <= status < 300 and not streamed)

    def _paced(self, send: Send) -> Send:
        """Other requests end a little later while one with a limit is under way.

        That one needs the event loop some fifty times, and each time waits for all that is ready: some clients that ask
        for little, one request after the other without a pause, would slow it down several times.
        """

        async def send_paced(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body") and self._busy():
                await asyncio.sleep(PACE_SECONDS)
            await send(message)

        return send_paced

    def _busy(self) -> bool:
        return any(limit.under_way or streams.under_way for _, limit, streams in self._limits)

    def _limit_of(self, scope: Scope) -> tuple[APIRoute, AdmissionLimit, AdmissionLimit] | None:
        """Of the first route that takes the request, as for the router itself."""
        return next((limited for limited in self._limits if limited[0].matches(scope)[0] is Match.FULL), None)
