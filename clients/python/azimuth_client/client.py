"""The two clients: what each operation is, is in `operations`; here is how it runs."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import httpx

from azimuth_client.operations import Operations, Retries

P = ParamSpec("P")
T = TypeVar("T")

RETRIES = Retries()


def _options(
    url: str, key: str | None, timeout: float, certificate: Path | str | None, transport: Any, trust_env: bool
) -> dict[str, Any]:
    """Of an httpx client. Without TLS no authorities are loaded."""
    return {
        "base_url": url,
        "headers": {b"Authorization": f"Bearer {key}".encode()} if key else None,
        "timeout": httpx.Timeout(timeout, connect=5.0),
        "verify": verification(httpx.URL(url), certificate),
        "transport": transport,
        "trust_env": trust_env,
    }


def verification(url: httpx.URL, certificate: Path | str | None) -> ssl.SSLContext | bool:
    """How the certificate of a service is verified. On this machine it need not have the name of the address."""
    if url.scheme != "https":
        return False
    context = httpx.create_ssl_context()
    if certificate is not None:
        context.load_verify_locations(certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the service's own is enough, without its issuer's
        context.check_hostname = url.host not in {"127.0.0.1", "::1", "localhost"}
    return context


class _Waiting:
    def __init__(self, url: str, retries: Retries, http: httpx.AsyncClient) -> None:
        self.url, self.retries, self.http = url, retries, http
        self.build: Callable[..., httpx.Request] = http.build_request

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self.http.send(request)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Blocking:
    """Its coroutines never wait, so that whoever awaits them comes to his end at once."""

    def __init__(self, url: str, retries: Retries, http: httpx.Client) -> None:
        self.url, self.retries, self.http = url, retries, http
        self.build: Callable[..., httpx.Request] = http.build_request

    async def send(self, request: httpx.Request) -> httpx.Response:
        return self.http.send(request)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  blocking is what is asked for


class AsyncClient(Operations):
    """One connection pool to one service. Use as an async context manager, or call `close`.

    `key`: an API key. `timeout`: seconds until an answer begins. `retries`: when a request is repeated.
    `certificate`: a PEM file that is trusted besides the usual authorities. `transport`: one of httpx, for tests.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: Retries = RETRIES,
        certificate: Path | str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(**_options(self.url, key, timeout, certificate, transport, trust_env))
        super().__init__(_Waiting(self.url, retries, self._http))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _finish(work: Awaitable[T]) -> T:
    """The result of a coroutine that never waits."""
    steps: Generator[Any, Any, T] = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("documents that arrive asynchronously need an AsyncClient")


def _blocking(
    operation: Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    @wraps(operation)
    def run(client: "Client", *arguments: P.args, **options: P.kwargs) -> T:
        return _finish(operation(client._operations, *arguments, **options))

    return cast(Callable[Concatenate["Client", P], T], run)


def _iterating(
    operation: Callable[Concatenate[Operations, P], AsyncIterator[T]],
) -> Callable[Concatenate["Client", P], Iterator[T]]:
    @wraps(operation)
    def run(client: "Client", *arguments: P.args, **options: P.kwargs) -> Iterator[T]:
        found = operation(client._operations, *arguments, **options)
        while True:
            try:
                one = _finish(found.__anext__())
            except StopAsyncIteration:
                return
            yield one

    return cast(Callable[Concatenate["Client", P], Iterator[T]], run)


class Client:
    """One connection pool to one service. Use as a context manager, or call `close`. Arguments as for `AsyncClient`."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: Retries = RETRIES,
        certificate: Path | str | None = None,
        transport: httpx.BaseTransport | None = None,
        trust_env: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(**_options(self.url, key, timeout, certificate, transport, trust_env))
        self._operations = Operations(_Blocking(self.url, retries, self._http))

    call = _blocking(Operations.call)
    alive = _blocking(Operations.alive)
    ready = _blocking(Operations.ready)
    collections = _blocking(Operations.collections)
    collection = _blocking(Operations.collection)
    put_collection = _blocking(Operations.put_collection)
    ensure_collection = _blocking(Operations.ensure_collection)
    delete_collection = _blocking(Operations.delete_collection)
    write = _blocking(Operations.write)
    import_batches = _iterating(Operations.import_batches)
    import_documents = _blocking(Operations.import_documents)
    get = _blocking(Operations.get)
    fetch = _blocking(Operations.fetch)
    documents = _iterating(Operations.documents)
    count = _blocking(Operations.count)
    patch = _blocking(Operations.patch)
    delete = _blocking(Operations.delete)
    delete_all = _blocking(Operations.delete_all)
    search = _blocking(Operations.search)
    search_batch = _blocking(Operations.search_batch)
    similar = _blocking(Operations.similar)
    embed = _blocking(Operations.embed)
    rerank = _blocking(Operations.rerank)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
