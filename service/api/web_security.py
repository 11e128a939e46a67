"""What keeps other web sites out of a service that a user's browser can reach.

A page can give its own name the address of the service (DNS rebinding), so that the browser takes both for one site
and lets the page read all answers: the `Host` of such a request is a name that nobody allowed. It can also send forms
to the service, whose answers it cannot read (CSRF): browsers tell where such a request comes from.
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing (RFC 9110, 9.2.1)."""
FORM_TYPES = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""Content types that a page may send to other sites without asking them first (Fetch, "CORS-safelisted")."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of pages for people: they load nothing from elsewhere and run no inline script, whatever a document contains."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every response that does not set them itself."""
STRICT_TRANSPORT = "max-age=2592000"
"""A month. Not for `localhost`, where the rule would bind all other local services as well."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+?)\.?)(?::\d{1,5})?", re.IGNORECASE | re.ASCII)


class WebSecurityMiddleware:
    """Refuses requests to names that are none of this service's, and changes on behalf of other origins.

    `hosts`: names, `*.example.com` for all names below one, addresses, networks (`10.0.0.0/8`), or `*` for all.
    `origins`: those whose pages may change something. Every answer gets the headers above.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._names, self._networks, self._origins = set[str](), [], frozenset(origins)
        for one in hosts:
            try:
                self._networks.append(ipaddress.ip_network(one))
            except ValueError:
                self._names.add(one.lower())
        self._allows_host = lru_cache(maxsize=256)(self.allows_host)  # nearly every request names the same one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-cache" if "etag" in headers else "no-store")
                if scope.get("scheme") == "https" and host_of(request) != "localhost":
                    headers["Strict-Transport-Security"] = STRICT_TRANSPORT
            await send(message)

        app = self._app
        nameless = "host" not in request and scope.get("http_version") == "1.0"  # a health check, never a browser
        if not nameless and not self._allows_host(host_of(request)):
            detail = "the Host of this request is none of this service's; AZIMUTH_ALLOWED_HOSTS lists those that are"
            app = problems.http_error_response(scope, HTTPException(421, detail))
        elif scope["method"] not in SAFE_METHODS and not self._allows_change(request):
            detail = "this request comes from a page of another origin; AZIMUTH_CORS_ORIGINS lists those that may"
            app = problems.http_error_response(scope, HTTPException(403, detail))
        await app(scope, receive, send_with_headers)

    def allows_host(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            above = (f"*{host[at:]}" for at, sign in enumerate(host) if sign == ".")
            return not self._names.isdisjoint({"*", host, *above})
        address = getattr(address, "ipv4_mapped", None) or address
        return "*" in self._names or any(address in network for network in self._networks)

    def _allows_change(self, request: Headers) -> bool:
        """The algorithm of Go's `http.CrossOriginProtection`. With a key all may: no browser adds one by itself."""
        origin, site = request.get("origin"), request.get("sec-fetch-site")
        if not self._origins.isdisjoint({"*", origin}) or _has_key(request):
            return True
        if site is not None:
            return site in {"same-origin", "none"}  # none: the user typed the address
        return origin is None or origin.lower().partition("://")[2] == request.get("host", "").lower()


def _has_key(headers: Headers) -> bool:
    """In a header that a page has to ask for. Not `Basic`, which a browser sends by itself once it knows it."""
    bearer = headers.get("authorization", "").lower().startswith("bearer ")
    return bearer or "api-key" in headers or "x-api-key" in headers


def host_of(request: Headers) -> str:
    """The name or address of the `Host`, in lower case and without port; empty where there is no valid one."""
    sent = request.getlist("host")
    found = _HOST.fullmatch(sent[0]) if len(sent) == 1 else None
    return "" if found is None else (found[1] or found[2]).lower()
