"""The two clients: what each operation is, is in `operations`; here is how it runs."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast
from weakref import WeakKeyDictionary

import httpx

from azimuth_client.operations import Operations, Retries

P = ParamSpec("P")
T = TypeVar("T")


class Options(TypedDict, total=False):
    """`timeout`: seconds until an answer begins (60). `certificate`: a PEM file that is trusted besides the usual
    authorities. `transport`: one of httpx, instead of the network. `trust_env`: whether its proxies are used."""

    timeout: float
    retries: Retries
    certificate: Path | str | None
    transport: Any
    trust_env: bool


def _httpx_options(url: str, key: str | None, options: Options) -> dict[str, Any]:
    return {
        "base_url": url,
        "headers": {b"Authorization": f"Bearer {key}".encode()} if key else None,
        "timeout": httpx.Timeout(options.get("timeout", 60.0), connect=5.0),
        "verify": verification(httpx.URL(url), options.get("certificate")),
        "transport": options.get("transport"),
        "trust_env": options.get("trust_env", True),
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


class AsyncClient(Operations):
    """Connections to one service, with an API key where it needs one. An async context manager, or `close` it."""

    def __init__(self, url: str, key: str | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url.rstrip("/"), options.get("retries", Retries()))
        self._options = _httpx_options(self.url, key, options)
        self._of_loops = WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]()
        """Connections belong to their event loop, and programs with several calls of `asyncio.run` have several."""

    def _http(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._of_loops:
            self._of_loops[loop] = httpx.AsyncClient(**self._options)
        return self._of_loops[loop]

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        return await self._http().request(method, path, **content)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._http().aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Blocking(Operations):
    """Its coroutines never wait, so that whoever awaits them comes to their end at once."""

    def __init__(self, url: str, retries: Retries, http: httpx.Client) -> None:
        super().__init__(url, retries)
        self.http = http

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        return self.http.request(method, path, **content)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  blocking is what is asked for


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
    """Connections to one service, with an API key where it needs one. A context manager, or `close` it."""

    def __init__(self, url: str, key: str | None = None, **options: Unpack[Options]) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(**_httpx_options(self.url, key, options))
        self._operations = _Blocking(self.url, options.get("retries", Retries()), self._http)

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
    mark = _blocking(Operations.mark)
    feedback = _iterating(Operations.feedback)
    count = _blocking(Operations.count)
    patch = _blocking(Operations.patch)
    delete = _blocking(Operations.delete)
    delete_all = _blocking(Operations.delete_all)
    search = _blocking(Operations.search)
    search_batch = _blocking(Operations.search_batch)
    similar = _blocking(Operations.similar)
    suggest = _blocking(Operations.suggest)
    embed = _blocking(Operations.embed)
    rerank = _blocking(Operations.rerank)
    keys = _blocking(Operations.keys)
    create_key = _blocking(Operations.create_key)
    rotate_key = _blocking(Operations.rotate_key)
    revoke_key = _blocking(Operations.revoke_key)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
