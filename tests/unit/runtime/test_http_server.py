"""How the processes listen: addresses, ports, TLS, proxies."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from azimuth_client import ApiError, Unreachable
from service.client.http_client import Client
from service.core.access import ApiKey
from service.core.errors import Misconfigured
from service.runtime import http_server, processes
from service.runtime.container import components
from service.runtime.settings import Settings
from service.store.postgres.store import Store
from tests.fakes import FakeAdapters
from tests.programs import program, unused_port
from tests.running import running, until


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    http_server.require_key_or_loopback(Settings(host=host), has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "search.example.org"])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(Misconfigured, match="AZIMUTH_API_KEYS"):
        http_server.require_key_or_loopback(Settings(host=host), has_keys=False)
    http_server.require_key_or_loopback(Settings.model_validate({"host": host, "api_keys": "secret"}), has_keys=False)
    http_server.require_key_or_loopback(Settings(host=host), has_keys=True)


def test_an_occupied_port_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {port} .* AZIMUTH_PORT"):
            http_server.require_usable(Settings(), port)
    http_server.require_usable(Settings(), port)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_where_a_service_is_found(host: str, address: str) -> None:
    assert Settings(host=host).address() == address
    with Client(address):
        pass


@dataclass
class Served:
    """A real server on loopback, which answers with what it believes about the client."""

    url: str
    folder: Path

    def trusting(self) -> httpx.AsyncClient:
        """A client that trusts the present certificate alone."""
        return httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=str(self.folder / "tls.crt")), trust_env=False
        )


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    app = FastAPI()

    @app.get("/")
    async def about(request: Request) -> dict[str, object]:
        return {"client": request.client and request.client.host, "scheme": request.url.scheme}

    chosen = Settings.model_validate({"port": unused_port(), **settings})
    async with running(lambda stop: http_server.serve_http(app, chosen, chosen.port, stop)):
        await until(lambda: http_server._occupied(chosen.host, chosen.port))
        yield Served(chosen.address(), folder)


def openssl(*arguments: str) -> None:
    subprocess.run([program("openssl"), *arguments], check=True, capture_output=True)


def certify(folder: Path, name: str) -> None:
    """Write a new self-signed certificate with its key into the folder, each at once as deployments do."""
    new_key, new_certificate = folder / "new.key", folder / "new.crt"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{name}"]
    openssl(*command.split(), *names, "-keyout", str(new_key), "-out", str(new_certificate))
    new_key.rename(folder / "tls.key")
    new_certificate.rename(folder / "tls.crt")


async def test_tls_is_spoken_and_a_renewed_certificate_used_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "TLS_RELOAD_SECONDS", 0.02)
    certify(tmp_path, "first.example")
    files = {"tls_certificate": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    async with served(tmp_path, **files) as one:
        assert one.url.startswith("https://")
        async with one.trusting() as first:
            assert (await first.get(one.url)).json()["scheme"] == "https"
            certify(tmp_path, "second.example")

            async def renewed() -> bool:
                async with one.trusting() as second:
                    try:
                        return (await second.get(one.url)).is_success
                    except httpx.ConnectError:
                        return False

            async with asyncio.timeout(10):
                while not await renewed():
                    await asyncio.sleep(0.02)
            assert (await first.get(one.url)).is_success  # its connection stays
        with Client(one.url, certificate=files["tls_certificate"]) as commands:  # as the commands find it
            assert await asyncio.to_thread(commands.alive) is False  # there is no /livez here, but an answer
            with pytest.raises(ApiError, match="404"):
                await asyncio.to_thread(commands.call, "GET", "/livez")
        with Client(one.url) as stranger, pytest.raises(Unreachable, match="certificate"):
            await asyncio.to_thread(stranger.call, "GET", "/")
        (tmp_path / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nhalf")  # a copy that is not finished
        await asyncio.sleep(0.1)
        (tmp_path / "tls.key").unlink()
        await asyncio.sleep(0.1)
        async with httpx.AsyncClient(verify=False, trust_env=False) as any_certificate:
            assert (await any_certificate.get(one.url)).is_success
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(one.url.replace("https", "http"))


def test_files_that_are_no_certificate_are_told(tmp_path: Path) -> None:
    certify(tmp_path, "one.example")
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    other = tmp_path / "other"
    other.mkdir()
    certify(other, "other.example")
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", str(key), "-aes256", "-passout", "pass:word", "-out", str(locked))
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + certificate.read_text())
    http_server.tls_context(both, None)
    for pair in [(certificate, None), (certificate, other / "tls.key"), (certificate, locked), (tmp_path, key)]:
        with pytest.raises(Misconfigured, match="AZIMUTH_TLS_CERTIFICATE"):
            http_server.tls_context(*pair)
    with pytest.raises(Misconfigured, match="No such file"):
        http_server.require_usable(Settings(tls_certificate=tmp_path / "missing"), unused_port())


@pytest.mark.parametrize(
    ("trusted", "client"), [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1, 10.0.0.0/8", "198.51.100.7")]
)
async def test_forwarded_headers_count_from_configured_proxies_alone(
    tmp_path: Path, trusted: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    headers = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7, 10.1.1.1", "X-Forwarded-Proto": "https"}
    async with served(tmp_path, trusted_proxies=trusted) as one, httpx.AsyncClient(trust_env=False) as opened:
        found = (await opened.get(one.url, headers=headers)).json()
    assert found == {"client": client, "scheme": "http" if client == "127.0.0.1" else "https"}


@pytest.mark.parametrize("sent", ["*", "proxy.example", "10.0.0.0/99", "10.0.0.1:80"])
def test_a_proxy_is_named_by_its_address(sent: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings.model_validate({"trusted_proxies": sent})


async def test_a_key_in_the_database_is_enough_for_the_network() -> None:
    store = FakeAdapters()
    public = Settings(host="0.0.0.0")
    with pytest.raises(Misconfigured, match="azimuth keys create"):
        await components.open_key_ring(public, cast(Store, store)).__aenter__()
    await store.api_keys.create(ApiKey(name="ci", digest=b"1", role="read", created_at=datetime.now(UTC)), "tests")
    async with components.open_key_ring(public, cast(Store, store)) as keys:
        assert keys.required


def test_a_worker_that_cannot_have_its_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as neighbour:
        port = neighbour.getsockname()[1]
        with pytest.raises(Misconfigured, match="AZIMUTH_WORKER_PORT"):
            processes.worker(Settings.model_validate({"worker_port": port}), supervised=False)


def test_the_next_free_port_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        found = http_server.first_free_port("127.0.0.1", port)
        assert found > port
        http_server.require_usable(Settings(), found)
    assert http_server.first_free_port("127.0.0.1", port) == port
    assert 32_768 <= http_server.first_free_port("127.0.0.1", 65_536) < 65_536
