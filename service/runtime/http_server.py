"""How the processes listen: on which address and port, over TLS or not, behind which proxies."""

import asyncio
import ipaddress
import logging
import resource
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Protocol

from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from service.core.errors import Misconfigured, raised_as
from service.core.periodic import in_background, repeat_every
from service.runtime.settings import Settings

log = logging.getLogger(__name__)

OTHER_FILES = 200
"""Open files of a process besides connections of clients, at least."""
TLS_RELOAD_SECONDS = 5.0
NEXT_PORTS = 50
LOOPBACK_HOSTS = ("localhost", "*.localhost", "127.0.0.0/8", "::1")
ALL_ADDRESSES = ("0.0.0.0/0", "::/0")
"""No page can rebind an address: health checks and scrapers use the address of a container."""


class Application(Protocol):
    """FastAPI's, or one that passes requests on to one."""

    @property
    def state(self) -> State: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


async def serve_http(
    app: Application,
    settings: Settings,
    port: int,
    stop: asyncio.Event,
    *,
    drain_seconds: float = 0.0,
    on_exit: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests until `stop`, and `drain_seconds` longer; `on_exit` is called before the last are waited for."""
    import uvicorn

    from service.api.http_protocol import HttpProtocol

    protocol = HttpProtocol.limited(
        max_connections=min(settings.max_connections, max(1, _open_files() - OTHER_FILES)),
        headers_seconds=settings.header_timeout_seconds,
        read_seconds=settings.body_timeout_seconds,
    )

    certificate, key = settings.tls_certificate, settings.tls_key
    context = None if certificate is None else tls_context(certificate, key)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        loop="uvloop",
        http=protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(one) for one in settings.trusted_proxies],
        ssl_certfile=certificate,
        ssl_context_factory=None if context is None else lambda *_: context,
        timeout_graceful_shutdown=20,
        timeout_keep_alive=settings.keep_alive_seconds,  # a server that closes first may do so during a request
    )
    server = uvicorn.Server(config)
    # Its own handling of signals would end the process before the database is stopped.
    server.capture_signals = nullcontext  # type: ignore[assignment]

    async def stop_server() -> None:
        await stop.wait()
        app.state.leaving = True
        await asyncio.sleep(drain_seconds)
        server.should_exit = True
        on_exit()

    async def renew_certificate() -> None:
        """New connections get what the files hold now. Where they cannot be used, the former stays in use."""
        if context is not None and certificate is not None:
            tls_context(certificate, key)
            context.load_cert_chain(certificate, key, password="")

    async with in_background(stop_server(), repeat_every("certificate", TLS_RELOAD_SECONDS, renew_certificate)):
        await server.serve()
    if not server.started:
        raise Misconfigured(f"nothing could listen on port {port}; see the log above for the reason")


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """For TLS 1.2 and later. Misconfigured where the files cannot be read, do not match, or need a passphrase."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    files = f"AZIMUTH_TLS_CERTIFICATE {certificate} with AZIMUTH_TLS_KEY {key or certificate}"
    with raised_as(Misconfigured, f"{files} cannot be used", OSError, ValueError):
        context.load_cert_chain(certificate, key, password="")
    return context


def allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """The hosts that requests may name; see `web_security.WebSecurityMiddleware`."""
    if is_loopback(settings.host):
        return (*LOOPBACK_HOSTS, *settings.allowed_hosts)
    return (*LOOPBACK_HOSTS, *ALL_ADDRESSES, *settings.allowed_hosts) if settings.allowed_hosts else ("*",)


def _open_files() -> int:
    """How many files this process may have open, as many as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def require_key_or_loopback(settings: Settings, *, has_keys: bool) -> None:
    """Misconfigured where anybody on the network could read and write: no key, and not bound to loopback."""
    if not is_loopback(settings.host) and not settings.api_keys and not has_keys:
        first = "set AZIMUTH_API_KEYS or run `azimuth keys create` first, or keep to 127.0.0.1"
        raise Misconfigured(f"AZIMUTH_HOST is {settings.host}, which others can reach: {first}")


def require_usable(settings: Settings, port: int, setting: str = "AZIMUTH_PORT") -> None:
    """Misconfigured where nothing can listen on `port`, which `setting` chooses, or the TLS files cannot be used."""
    if (reason := _occupied(settings.host, port)) is not None:
        raise Misconfigured(f"port {port} on {settings.host} cannot be used ({reason}); set {setting}")
    if settings.tls_certificate is not None:
        tls_context(settings.tls_certificate, settings.tls_key)


def first_free_port(host: str, wanted: int) -> int:
    """`wanted`, or one of the next; beyond the last they go on in the middle. Misconfigured if none is free."""
    for port in range(wanted, wanted + NEXT_PORTS):
        port = port if port < 65_536 else port - 32_768
        if _occupied(host, port) is None:
            return port
    raise Misconfigured(f"port {wanted} and the next {NEXT_PORTS} are not free; set AZIMUTH_WORKER_PORT")


def _occupied(host: str, port: int) -> str | None:
    """Why nothing can listen there; None where it can."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return error.strerror
    return None
